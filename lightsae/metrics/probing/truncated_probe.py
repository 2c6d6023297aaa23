"""Truncated linear probe: how much of the class do the k' largest activations tell?"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightsae.metrics.code_inputs import Code
from lightsae.metrics.probing.labelled_codes import LabelledCodes
from lightsae.metrics.probing.linear_probe import ProbeMetric

_PLACES = (1, 2, 4, 8, 16, 32)


class TruncatedProbeCurve:
    """Accuracy of a probe on the k' largest activations of each row.

    Attributes:
        k: The k' [points], int64, ascending.
        top1: Share of rows whose class is found [points], float64.
        auc: Area under `top1` over k' by trapezoids, divided by the range of k' (so that it is the
            mean of `top1`), float64 scalar.
        top1_at_32: `top1` at k' = 32, float64 scalar; NaN if that is no point.
        converged: Whether every fit came to its end within 1,000 iterations.
    """

    def __init__(
        self, k: Tensor, top1: Tensor, auc: Tensor, top1_at_32: Tensor, converged: bool
    ) -> None:
        self.k = k
        self.top1 = top1
        self.auc = auc
        self.top1_at_32 = top1_at_32
        self.converged = converged


def truncated_probe(
    values: Code,
    indices: Tensor | None = None,
    labels: Tensor | None = None,
    rows: Tensor | None = None,
    *,
    train: LabelledCodes,
    k: Sequence[int] = _PLACES,
) -> TruncatedProbeCurve:
    """Top-1 accuracy of linear probes that read only the k' largest activations of a row.

    For each k' a multinomial logistic regression is fitted on the training codes, all but the k'
    largest activations of each row set to zero (equal ones: the lowest latents stay), and judged on
    test rows treated alike (arXiv 2606.27321). The regression is scikit-learn's with C = 1, on
    codes divided by the root mean square length of the truncated training rows.

    Args:
        values: Codes to test on: a `SparseCode`, or activations [rows, k], or [entries] with
            `rows`.
        indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
        labels: Class of each row [rows], integers; behind a `SparseCode` it may be the second
            argument.
        rows: Row of each entry, as a place in `labels` [entries], integers.
        train: Codes and classes that the probes are fitted on.
        k: The k', ascending. Where codes have fewer places, the curve is flat from there on.

    Raises:
        LightsaeError: If shapes disagree, k is not ascending or `train` has a single class.
        MissingExtraError: If scikit-learn is not installed.

    Example:
        >>> values, indices = torch.tensor([[2.0, 1.0]] * 4), torch.tensor([[0, 1], [0, 2]] * 2)
        >>> labels = torch.tensor([0, 1] * 2)
        >>> train = LabelledCodes(values, indices, labels, d_sae=3)
        >>> truncated_probe(values, indices, labels, train=train, k=(1, 2)).top1
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    metric = TruncatedProbe(train, k)
    metric.update(values, indices, labels, rows)
    return metric.compute()


class TruncatedProbe(ProbeMetric):
    """Top-1 accuracy of probes on the k' largest activations of a row, over everything seen.

    The probes are fitted when it is made, on every rank alike. See `truncated_probe` for the
    definition.

    Args:
        train: Codes and classes that the probes are fitted on, such as `LabelledRows` gives them.
        k: The k', ascending.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> values, indices = torch.tensor([[2.0, 1.0]] * 4), torch.tensor([[0, 1], [0, 2]] * 2)
        >>> labels = torch.tensor([0, 1] * 2)
        >>> metric = TruncatedProbe(LabelledCodes(values, indices, labels, d_sae=3), k=(1, 2))
        >>> metric.update(values[:3], indices[:3], labels[:3])
        >>> metric.update(values[3:], indices[3:], labels[3:])
        >>> metric.compute().auc
        tensor(0.7500, dtype=torch.float64)
    """

    def __init__(self, train: LabelledCodes, k: Sequence[int] = _PLACES, **kwargs: object) -> None:
        super().__init__(train, k, **kwargs)

    def compute(self) -> TruncatedProbeCurve:
        """Return the curve."""
        top1 = self.top1()
        k = torch.tensor(self.k, device=top1.device)
        area = torch.trapezoid(top1, k) / (k[-1] - k[0]) if len(k) > 1 else top1[0]
        at_32 = top1[self.k.index(32)] if 32 in self.k else top1.new_tensor(torch.nan)
        return TruncatedProbeCurve(k, top1, area, at_32, self.converged)

    def _features(self, codes: LabelledCodes, k: int) -> Any:
        """The codes with the k largest activations of each row."""
        return codes.truncated(k).matrix()
