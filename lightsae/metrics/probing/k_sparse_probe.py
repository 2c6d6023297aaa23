"""k-sparse probing: how much of the class do the k best latents tell?"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import Code
from lightsae.metrics.probing.anova import anova_f
from lightsae.metrics.probing.labelled_codes import LabelledCodes
from lightsae.metrics.probing.linear_probe import ProbeMetric, ascending

_LATENTS = (1, 2, 4, 8, 16, 32)


class KSparseProbeCurve:
    """Accuracy of a probe on the k latents that tell the classes apart best.

    Attributes:
        k: Number of latents [points], int64, ascending.
        top1: Share of rows whose class is found [points], float64.
        latents: The latents, best first [largest k], int64.
        converged: Whether every fit came to its end within 1,000 iterations.
    """

    def __init__(self, k: Tensor, top1: Tensor, latents: Tensor, converged: bool) -> None:
        self.k = k
        self.top1 = top1
        self.latents = latents
        self.converged = converged


def _by_anova(train: LabelledCodes, n: int) -> Tensor:
    """The n latents of the largest F, equal ones by their number."""
    f = anova_f(train)
    f = f.where(~f.isnan(), -1)
    return f.sort(stable=True, descending=True).indices[:n].cpu()


def k_sparse_probe(
    values: Code,
    indices: Tensor | None = None,
    labels: Tensor | None = None,
    rows: Tensor | None = None,
    *,
    train: LabelledCodes,
    k: Sequence[int] = _LATENTS,
) -> KSparseProbeCurve:
    """Top-1 accuracy of linear probes that read only the k most telling latents.

    The latents are those with the largest F of an analysis of variance between the classes on the
    training codes (`anova_f`), the same k for all classes; on them a multinomial
    logistic regression is fitted and judged on test rows. Sparse probing: arXiv 2305.01610 (Gurnee
    et al.), which ranks for one class against the rest.

    Args:
        values: Codes to test on: a `SparseCode`, or activations [rows, k], or [entries] with
            `rows`.
        indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
        labels: Class of each row [rows], integers; behind a `SparseCode` it may be the second
            argument.
        rows: Row of each entry, as a place in `labels` [entries], integers.
        train: Codes and classes that latents are chosen and probes fitted on.
        k: Numbers of latents, ascending, at most d_sae.

    Raises:
        LightsaeError: If shapes disagree, k is not ascending or above d_sae, or `train` has a
            single class.
        MissingExtraError: If scikit-learn is not installed.

    Example:
        >>> values, indices = torch.tensor([[2.0, 1.0]] * 4), torch.tensor([[0, 1], [0, 2]] * 2)
        >>> labels = torch.tensor([0, 1] * 2)
        >>> train = LabelledCodes(values, indices, labels, d_sae=3)
        >>> curve = k_sparse_probe(values, indices, labels, train=train, k=(1,))
        >>> curve.top1, curve.latents
        (tensor([1.], dtype=torch.float64), tensor([1]))
    """
    metric = KSparseProbe(train, k)
    metric.update(values, indices, labels, rows)
    return metric.compute()


class KSparseProbe(ProbeMetric):
    """Top-1 accuracy of probes on the k most telling latents, over everything seen.

    Latents are chosen and probes fitted when it is made, on every rank alike. See `k_sparse_probe`
    for the definition.

    Args:
        train: Codes and classes that latents are chosen and probes fitted on, such as
            `LabelledRows` gives them.
        k: Numbers of latents, ascending, at most d_sae.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> values, indices = torch.tensor([[2.0, 1.0]] * 4), torch.tensor([[0, 1], [0, 2]] * 2)
        >>> labels = torch.tensor([0, 1] * 2)
        >>> metric = KSparseProbe(LabelledCodes(values, indices, labels, d_sae=3), k=(1, 2))
        >>> metric.update(values[:3], indices[:3], labels[:3])
        >>> metric.compute().top1
        tensor([1., 1.], dtype=torch.float64)
    """

    latents: Tensor

    def __init__(self, train: LabelledCodes, k: Sequence[int] = _LATENTS, **kwargs: object) -> None:
        largest = ascending(k)[-1]
        if largest > train.d_sae:
            raise LightsaeError(f"k = {largest} is larger than d_sae = {train.d_sae}")
        self._best = _by_anova(train, largest)
        super().__init__(train, k, **kwargs)

    def compute(self) -> KSparseProbeCurve:
        """Return the curve."""
        top1 = self.top1()
        k = torch.tensor(self.k, device=top1.device)
        return KSparseProbeCurve(k, top1, self._best.to(top1.device), self.converged)

    def _features(self, codes: LabelledCodes, k: int) -> Any:
        """The codes of the k best latents."""
        return codes.matrix()[:, self._best[:k].numpy()]
