"""Class purity: does a latent fire on images of one class?"""

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import Code, of_rows, pair_keys, required, size, spread
from lightsae.metrics.grouped_sums import grouped_sums
from lightsae.metrics.metric_base import ExactMetric
from lightsae.sae.index_checks import within


class PurityScores:
    """Class purity of all latents.

    Attributes:
        binary: Share of a latent's firings that are on its main class [d_sae], float64; NaN where
            it never fires.
        weighted: Share of its activation mass that is on its main class [d_sae], float64; NaN too.
        main_class: Class with the most firings, the lowest of equals [d_sae], int64; -1 where the
            latent never fires.
        mean_binary: Mean of `binary` over the latents that fire, float64 scalar; NaN without one.
        mean_weighted: Mean of `weighted` over them.
    """

    def __init__(
        self,
        binary: Tensor,
        weighted: Tensor,
        main_class: Tensor,
        mean_binary: Tensor,
        mean_weighted: Tensor,
    ) -> None:
        self.binary = binary
        self.weighted = weighted
        self.main_class = main_class
        self.mean_binary = mean_binary
        self.mean_weighted = mean_weighted


def _checked(
    values: Code, indices: Tensor | None, labels: Tensor | None, d_sae: int | None, n_classes: int
) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """Return the positive activations, their latents and classes, [entries] each, and d_sae."""
    values, indices, labels, d_sae = of_rows(values, indices, labels, "labels", d_sae)
    if not (values >= 0).all():
        raise LightsaeError("values must be finite and not negative")
    labels = within("labels", labels, n_classes, f"n_classes = {n_classes}")
    fired = values > 0
    return (values[fired].double(), indices[fired], spread(labels, values)[fired]), d_sae


def _class_purity_update(
    firings: Tensor, mass: Tensor, values: Tensor, latents: Tensor, labels: Tensor
) -> None:
    """Add entries to both tables [d_sae, n_classes], in place."""
    d_sae, n_classes = firings.shape
    legend = f"d_sae = {d_sae} and {n_classes} classes"
    keys = pair_keys(latents, labels, d_sae, n_classes, legend)
    if keys.is_cpu:
        firings.view(-1).index_add_(0, keys, torch.ones_like(keys))
        mass.view(-1).index_add_(0, keys, values)
        return
    cells, groups, counts = keys.unique(return_inverse=True, return_counts=True)
    firings.view(-1)[cells] += counts
    mass.view(-1)[cells] += grouped_sums(values, groups, len(cells))


def _class_purity_compute(firings: Tensor, mass: Tensor) -> PurityScores:
    """Return the shares of the main class."""
    fired = firings.sum(1)
    most, main = firings.max(1)
    alive = fired > 0
    binary = most.double() / fired
    weighted = mass.gather(1, main.unsqueeze(1)).squeeze(1) / mass.sum(1)
    binary, weighted = (each.where(alive, torch.nan) for each in (binary, weighted))
    return PurityScores(
        binary, weighted, main.where(alive, -1), binary.nanmean(), weighted.nanmean()
    )


def _empty(d_sae: int, n_classes: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return the tables of no images."""
    firings = torch.zeros(d_sae, n_classes, dtype=torch.long, device=device)
    return firings, firings.double()


def class_purity(
    values: Code,
    indices: Tensor | None = None,
    labels: Tensor | None = None,
    d_sae: int | None = None,
    n_classes: int | None = None,
) -> PurityScores:
    """Share of a latent's firings, and of its activation mass, that is on one class.

    With c* the class on whose images latent j fires most often, `binary_j = firings on c* / firings`
    and `weighted_j = sum of a_j on c* / sum of a_j` (arXiv 2606.27321). The means are over latents
    that fire.

    Args:
        values: A `SparseCode`, or activations, not negative: [rows, k], or [entries] with one
            latent each.
        indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
        labels: Class of each row or entry, integers; behind a `SparseCode` it may be the second
            argument.
        d_sae: Number of latents; a `SparseCode` tells it.
        n_classes: Number of classes.

    Raises:
        LightsaeError: If shapes disagree, an activation is negative, or a latent or a class does
            not exist.

    Example:
        >>> values, indices = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[0], [0], [0]])
        >>> purity = class_purity(values, indices, torch.tensor([1, 1, 0]), d_sae=2, n_classes=2)
        >>> purity.binary, purity.weighted, purity.main_class
        (tensor([0.6667,    nan], dtype=torch.float64), tensor([0.5000,    nan], dtype=torch.float64), tensor([ 1, -1]))
    """  # noqa: E501
    n_classes = size("n_classes", required("n_classes", n_classes))
    entries, d_sae = _checked(values, indices, labels, d_sae, n_classes)
    tables = _empty(d_sae, n_classes, entries[0].device)
    _class_purity_update(*tables, *entries)
    return _class_purity_compute(*tables)


class ClassPurity(ExactMetric):
    """Share of a latent's firings, and of its activation mass, on one class, over everything seen.

    The state is 16 bytes for each latent and class. See `class_purity` for the definition.

    Args:
        d_sae: Number of latents.
        n_classes: Number of classes.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = ClassPurity(d_sae=2, n_classes=2)
        >>> metric.update(torch.ones(2, 1), torch.tensor([[0], [0]]), torch.tensor([1, 1]))
        >>> metric.update(torch.ones(1, 1), torch.tensor([[0]]), torch.tensor([0]))
        >>> metric.compute().mean_binary
        tensor(0.6667, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    firings: Tensor
    mass: Tensor

    def __init__(self, d_sae: int, n_classes: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_sae, self.n_classes = size("d_sae", d_sae), size("n_classes", n_classes)
        firings, mass = _empty(self.d_sae, self.n_classes)
        self.add_state("firings", firings, dist_reduce_fx="sum")
        self.add_state("mass", mass, dist_reduce_fx="sum")

    def update(
        self, values: Code, indices: Tensor | None = None, labels: Tensor | None = None
    ) -> None:
        """Add a batch of codes.

        Args:
            values: A `SparseCode`, or activations, not negative: [rows, k], or [entries] with one
                latent each.
            indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
            labels: Class of each row or entry, integers; behind a `SparseCode` it may be the
                second argument.

        Raises:
            LightsaeError: As in `class_purity`.
        """
        entries, _ = _checked(values, indices, labels, self.d_sae, self.n_classes)
        _class_purity_update(self.firings, self.mass, *entries)

    def compute(self) -> PurityScores:
        """Return the shares of all latents."""
        return _class_purity_compute(self.firings, self.mass)
