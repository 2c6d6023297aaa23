"""Moran's I: are the patches on which a latent fires next to each other?"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import (
    Code,
    both_after,
    of_rows,
    pair_keys,
    require_tensors,
    required,
    size,
    spread,
)
from lightsae.metrics.grouped_sums import grouped_sums
from lightsae.metrics.metric_base import ExactMetric
from lightsae.sae.index_checks import integers, within


class MoransIScores:
    """Moran's I of all latents.

    Attributes:
        scores: Mean of I over the images that have one [d_sae], float64; NaN without one.
        images: Images that the mean is over [d_sae], int64.
        mean: Mean of the scores over latents, float64 scalar; NaN without one.
        incomplete: Images of which not every patch was given; they are left out. Int64 scalar.
    """

    def __init__(self, scores: Tensor, images: Tensor, mean: Tensor, incomplete: Tensor) -> None:
        self.scores = scores
        self.images = images
        self.mean = mean
        self.incomplete = incomplete


class _Patches(NamedTuple):
    """Patches whose images are not complete yet.

    Attributes:
        rows: Image and patch of each [patches, 2], int64.
        keys: Image, patch and latent of each positive activation [entries, 3], int64.
        values: The activations [entries], float64.
    """

    rows: Tensor
    keys: Tensor
    values: Tensor


def _grid(grid: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of patches; raise on what is no grid."""
    height, width = (size("grid", each) for each in grid)
    if height * width < 2:
        raise LightsaeError(f"grid = {tuple(grid)}, expected at least two patches")
    return height, width


def _checked(
    values: Code,
    indices: Tensor | None,
    sample_index: Tensor | None,
    patch_index: Tensor | None,
    d_sae: int | None,
    grid: tuple[int, int],
) -> tuple[_Patches, int]:
    """Return the patches and d_sae; raise on what does not fit together."""
    indices, sample_index, patch_index = both_after(
        values, indices, sample_index, patch_index, "sample_index patch_index"
    )
    values, indices, sample_index, d_sae = of_rows(
        values, indices, sample_index, "sample_index", d_sae
    )
    require_tensors(values=values, patch_index=patch_index)
    if values.ndim != 2 or patch_index.shape != sample_index.shape:
        raise LightsaeError(
            f"values and patch_index have shapes {list(values.shape)} and "
            f"{list(patch_index.shape)}, expected [rows, k] and [rows]"
        )
    if not (values >= 0).all():
        raise LightsaeError("values must be finite and not negative")
    n_patches = grid[0] * grid[1]
    patch_index = integers("patch_index", patch_index)
    patch_index = within("patch_index", patch_index, n_patches, f"{n_patches} patches")
    fired = values > 0
    columns = spread(sample_index, values), spread(patch_index, values), indices
    rows = torch.stack([sample_index, patch_index], dim=1)
    keys = torch.stack([column[fired] for column in columns], dim=1)
    return _Patches(rows, keys, values[fired].double()), d_sae


def _split(patches: _Patches, n_patches: int) -> tuple[_Patches, _Patches]:
    """Return the patches of complete images, and the others."""
    images, places, counts = patches.rows[:, 0].unique(return_inverse=True, return_counts=True)
    legend = f"{len(images)} images of {n_patches} patches"
    cells = pair_keys(places, patches.rows[:, 1], len(images), n_patches, legend)
    if len(cells.unique()) < len(cells):
        raise LightsaeError("a patch of an image was given twice")
    complete = counts == n_patches
    rows = complete[places]
    entries = complete[torch.searchsorted(images, patches.keys[:, 0].contiguous())]
    return (
        _Patches(patches.rows[rows], patches.keys[entries], patches.values[entries]),
        _Patches(patches.rows[~rows], patches.keys[~entries], patches.values[~entries]),
    )


def _scores(patches: _Patches, d_sae: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the sum over complete images of I of each latent, and how many have one."""
    height, width = grid
    n_patches, edges = height * width, height * (width - 1) + width * (height - 1)
    images, rows = patches.keys[:, 0].unique(return_inverse=True)
    legend = f"{len(images)} images and d_sae = {d_sae}"
    keys = pair_keys(rows, patches.keys[:, 2], len(images), d_sae, legend)
    legend += f" and {n_patches} patches"
    keys = pair_keys(keys, patches.keys[:, 1], len(images) * d_sae, n_patches, legend)
    keys, order = keys.sort()
    a, patch = patches.values[order], keys % n_patches
    owners, groups, counts = (keys // n_patches).unique_consecutive(
        return_inverse=True, return_counts=True
    )

    def summed(numbers: Tensor) -> Tensor:
        return grouped_sums(numbers, groups, len(owners))

    # I does not change when a constant is taken away; without the minimum no digits cancel.
    low = a.new_full((len(owners),), torch.inf).scatter_reduce(0, groups, a, "amin")
    a = a - low.where(counts == n_patches, 0)[groups]
    degree = 4 - sum(
        (edge.long() for edge in (
            patch % width == 0, patch % width == width - 1, patch < width,
            patch >= n_patches - width,
        )), start=torch.zeros_like(patch)
    )  # fmt: skip
    products = _beside(keys, a, 1, patch % width < width - 1)
    products = products + _beside(keys, a, width, patch < n_patches - width)
    mean = summed(a) / n_patches
    together = 2 * summed(products) - 2 * mean * summed(degree * a) + 2 * edges * mean.square()
    variance = summed(a.square()) - n_patches * mean.square()
    largest = a.new_zeros(len(owners)).scatter_reduce(0, groups, a, "amax")
    varies = largest > 0
    i = (n_patches / (2 * edges) * together / variance)[varies]
    latents = owners[varies] % d_sae
    return grouped_sums(i, latents, d_sae), torch.bincount(latents, minlength=d_sae)


def _beside(keys: Tensor, a: Tensor, step: int, inside: Tensor) -> Tensor:
    """Return the product of each activation with that of the patch `step` further, or zero."""
    place = torch.searchsorted(keys, keys + step).clamp(max=max(len(keys) - 1, 0))
    return (a * a[place]).where(inside & (keys[place] == keys + step), 0)


def _morans_i_compute(total: Tensor, images: Tensor, rest: _Patches) -> MoransIScores:
    """Return the means over images."""
    scores = total / images
    incomplete = images.new_tensor(len(rest.rows[:, 0].unique()))
    return MoransIScores(scores, images.clone(), scores.nanmean(), incomplete)


def morans_i(
    values: Code,
    indices: Tensor | None = None,
    sample_index: Tensor | None = None,
    patch_index: Tensor | None = None,
    d_sae: int | None = None,
    grid: tuple[int, int] | None = None,
) -> MoransIScores:
    """Moran's I of each latent over the patches of an image, averaged over images.

    With a_p the activation on patch p of P, b_p = a_p - mean(a), and w_pq = 1 where p and q are
    neighbours above, below, left or right (Moran 1950, "Notes on continuous stochastic phenomena"):

        I = P / (sum_pq w_pq) * sum_pq w_pq b_p b_q / sum_p b_p^2

    Towards 1 for a latent that fires on one large connected area, about -1 / (P - 1) for one that
    fires here and there, negative for a chequerboard. The mean is over the images on which the
    latent fires; those on which its activation is the same on every patch have no I and are left
    out, like those of which a patch is missing.

    Args:
        values: A `SparseCode`, or activations [rows, k], one row per patch.
        indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
        sample_index: Image of each row [rows], integers.
        patch_index: Patch of the image [rows], row by row from 0 on: without class and register
            tokens.
        d_sae: Number of latents; a `SparseCode` tells it.
        grid: Rows and columns of patches of an image.

    Raises:
        LightsaeError: If shapes disagree, a latent or patch does not exist, or a patch of an image
            is given twice.

    Example:
        >>> values = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
        >>> where = torch.zeros(4).long(), torch.arange(4)
        >>> morans_i(values, torch.zeros(4, 1).long(), *where, d_sae=1, grid=(1, 4)).scores
        tensor([0.3333], dtype=torch.float64)
    """
    grid = _grid(required("grid", grid))
    patches, d_sae = _checked(values, indices, sample_index, patch_index, d_sae, grid)
    complete, rest = _split(patches, grid[0] * grid[1])
    return _morans_i_compute(*_scores(complete, d_sae, grid), rest)


class MoransI(ExactMetric):
    """Moran's I of each latent over the patches of an image, averaged over all images seen.

    Patches of one image may be in several batches and on several ranks. Until an image is complete
    its activations are kept, 32 bytes each; where images come one after the other, as in a
    loader that does not shuffle, that is a batch or two. See `morans_i` for the definition.

    Args:
        d_sae: Number of latents.
        grid: Rows and columns of patches of an image.
        **kwargs: Passed to `torchmetrics.Metric`.

    Raises:
        LightsaeError: If the grid has fewer than two patches.

    Example:
        >>> metric = MoransI(d_sae=1, grid=(1, 4))
        >>> for patch, value in enumerate([1.0, 1.0, 0.0, 0.0]):
        ...     row = torch.tensor([[value]]), torch.tensor([[0]])
        ...     metric.update(*row, torch.tensor([0]), torch.tensor([patch]))
        >>> metric.compute().scores
        tensor([0.3333], dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    total: Tensor
    images: Tensor
    rows: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]

    def __init__(self, d_sae: int, grid: tuple[int, int], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_sae, self.grid = size("d_sae", d_sae), _grid(grid)
        self.add_state("total", torch.zeros(self.d_sae, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(self.d_sae).long(), dist_reduce_fx="sum")
        for name in _Patches._fields:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self,
        values: Code,
        indices: Tensor | None = None,
        sample_index: Tensor | None = None,
        patch_index: Tensor | None = None,
    ) -> None:
        """Add patches.

        Args:
            values: A `SparseCode`, or activations [rows, k], one row per patch.
            indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
            sample_index: Image of each row [rows], integers; behind a `SparseCode` it may be the
                second argument.
            patch_index: Patch of the image [rows], row by row from 0 on; behind it.

        Raises:
            LightsaeError: As in `morans_i`.
        """
        patches, _ = _checked(values, indices, sample_index, patch_index, self.d_sae, self.grid)
        for name, part in patches._asdict().items():
            getattr(self, name).append(part)
        # Look for complete images once as many patches are new as were left before.
        if sum(map(len, self.rows[1:])) >= len(self.rows[0]):
            self._settle()

    def compute(self) -> MoransIScores:
        """Return the scores of all latents."""
        self._settle()
        rest = _Patches(self.rows[0], self.keys[0], self.values[0])
        return _morans_i_compute(self.total, self.images, rest)

    def _settle(self) -> None:
        """Add the complete images to the sums and forget their patches."""
        self._fill_empty()
        patches = _Patches(*(dim_zero_cat(getattr(self, name)) for name in _Patches._fields))
        complete, rest = _split(patches, self.grid[0] * self.grid[1])
        total, images = _scores(complete, self.d_sae, self.grid)
        self.total, self.images = self.total + total, self.images + images
        for name, part in rest._asdict().items():
            setattr(self, name, [part])

    def _fill_empty(self) -> None:
        """Give a rank that saw nothing empty parts of the right dtype."""
        if len(self.rows) == 0:
            none = torch.empty(0, dtype=torch.long, device=self.device)
            empty = _Patches(none.view(0, 2), none.view(0, 3), none.double())
            for name, part in empty._asdict().items():
                setattr(self, name, [part])

    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors,
        process_group: ProcessGroup | None = None,
    ) -> None:
        """Gather the patches of every rank, those that saw nothing included."""
        self._settle()
        super()._sync_dist(dist_sync_fn, process_group)
