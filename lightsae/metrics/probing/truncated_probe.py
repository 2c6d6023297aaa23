"""Truncated linear probe: how much of the class do the k' largest activations tell?"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from lightsae.metrics.code_inputs import Code
from lightsae.metrics.metric_base import ExactMetric
from lightsae.metrics.probing.labelled_codes import LabelledCodes

# k' of the curve; the last is the one that top1_at_32 is read at.
_PLACES = (1, 2, 4, 8, 16, 32)


class TruncatedProbeCurve(NamedTuple):
    """Accuracy of a probe on the k' largest activations of each row.

    Attributes:
        k: The k' [points], int64, ascending.
        top1: Share of rows whose class is found [points], float64.
        auc: Area under `top1` over k' (trapezoids), divided by the range of k', float64 scalar.
        top1_at_32: `top1` at the largest k'.
        converged: Whether every fit came to its end.
    """

    k: Tensor
    top1: Tensor
    auc: Tensor
    top1_at_32: Tensor
    converged: bool


def truncated_probe(
    values: Code,
    indices: Tensor | None = None,
    labels: Tensor | None = None,
    d_sae: int | None = None,
    *,
    train: LabelledCodes,
    k: Sequence[int] = _PLACES,
    rows: Tensor | None = None,
) -> TruncatedProbeCurve:
    """Truncated linear probe."""
    raise NotImplementedError


class TruncatedProbe(ExactMetric):
    """Truncated linear probe.

    Args:
        train: Codes and classes that the probes are fitted on, such as `LabelledRows` gives them.
        k: The k', ascending.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    def __init__(self, train: LabelledCodes, k: Sequence[int] = _PLACES, **kwargs: object) -> None:
        super().__init__(**kwargs)

    def update(
        self,
        values: Code,
        indices: Tensor | None = None,
        labels: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> None:
        """Add rows to test on."""
        raise NotImplementedError

    def compute(self) -> TruncatedProbeCurve:
        """Return the curve."""
        raise NotImplementedError
