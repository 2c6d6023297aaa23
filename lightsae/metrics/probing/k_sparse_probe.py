"""k-sparse probing: how much of the class do the k best latents tell?"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from lightsae.metrics.code_inputs import Code
from lightsae.metrics.metric_base import ExactMetric
from lightsae.metrics.probing.labelled_codes import LabelledCodes

_LATENTS = (1, 2, 4, 8, 16, 32)


class KSparseProbeCurve(NamedTuple):
    """Accuracy of a probe on the k latents that tell the classes apart best.

    Attributes:
        k: Number of latents [points], int64, ascending.
        top1: Share of rows whose class is found [points], float64.
        latents: The latents, best first [largest k], int64.
        converged: Whether every fit came to its end.
    """

    k: Tensor
    top1: Tensor
    latents: Tensor
    converged: bool


def k_sparse_probe(
    values: Code,
    indices: Tensor | None = None,
    labels: Tensor | None = None,
    d_sae: int | None = None,
    *,
    train: LabelledCodes,
    k: Sequence[int] = _LATENTS,
    rows: Tensor | None = None,
) -> KSparseProbeCurve:
    """k-sparse probing."""
    raise NotImplementedError


class KSparseProbe(ExactMetric):
    """k-sparse probing.

    Args:
        train: Codes and classes that the probes are fitted on, such as `LabelledRows` gives them.
        k: Numbers of latents, ascending.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    def __init__(self, train: LabelledCodes, k: Sequence[int] = _LATENTS, **kwargs: object) -> None:
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

    def compute(self) -> KSparseProbeCurve:
        """Return the curve."""
        raise NotImplementedError
