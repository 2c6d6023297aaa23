"""One activation per image and latent, from the codes of its tokens."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import Code, after, pair_keys, require_tensors, size, unpacked
from lightsae.metrics.metric_base import ExactMetric
from lightsae.sae.index_checks import integers

Pooling = Literal["max", "mean"]


class PooledCodes:
    """Sparse codes with one activation per image and latent, and any number of latents per image.

    Attributes:
        values: Positive activations [entries], float64.
        indices: Latent of each entry [entries], int64.
        rows: Position of each entry's image in `sample_index` [entries], int64. Entries are
            sorted by row, then by latent.
        sample_index: The images, ascending [images], int64; those without an entry are there too.
    """

    def __init__(self, values: Tensor, indices: Tensor, rows: Tensor, sample_index: Tensor) -> None:
        self.values = values
        self.indices = indices
        self.rows = rows
        self.sample_index = sample_index


class _Entries(NamedTuple):
    """One activation per image and latent, and the tokens of each image.

    Attributes:
        keys: Image and latent of each entry [entries, 2], int64.
        values: Maximum or sum of its activations [entries], float64.
        samples: The images, ascending [images], int64.
        tokens: Tokens of each [images], int64.
    """

    keys: Tensor
    values: Tensor
    samples: Tensor
    tokens: Tensor


def _checked(
    values: Code,
    indices: Tensor | None,
    sample_index: Tensor | None,
    d_sae: int | None,
    pooling: str,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Values, indices, sample indices and d_sae; raise on what does not fit together."""
    _check_pooling(pooling)
    indices, sample_index = after(values, indices, sample_index, "sample_index")
    values, indices, d_sae = unpacked(values, indices, d_sae)
    require_tensors(values=values, sample_index=sample_index)
    if values.ndim != 2:
        raise LightsaeError(f"values has shape {list(values.shape)}, expected [tokens, k]")
    if sample_index.shape != values.shape[:1]:
        raise LightsaeError(
            f"sample_index has shape {list(sample_index.shape)}, expected [{len(values)}]"
        )
    return values, indices, integers("sample_index", sample_index), d_sae


def _check_pooling(pooling: str) -> None:
    """Raise on an unknown way to pool."""
    if pooling not in ("max", "mean"):
        raise LightsaeError(f"pooling is {pooling!r}, expected 'max' or 'mean'")


def _reduce(groups: Tensor, values: Tensor, n: int, pooling: str) -> Tensor:
    """Return the maximum (or sum) of the values of each of n groups."""
    how = "amax" if pooling == "max" else "sum"
    return values.new_zeros(n).scatter_reduce(0, groups, values, how, include_self=False)


def _of_tokens(
    values: Tensor, indices: Tensor, sample_index: Tensor, d_sae: int, pooling: str
) -> _Entries:
    """Pool the codes of tokens."""
    samples, rows, tokens = sample_index.unique(return_inverse=True, return_counts=True)
    positive = values > 0
    rows = rows.unsqueeze(1).expand_as(indices)[positive]
    keys, groups = _distinct(rows, indices[positive], samples, d_sae)
    pooled = _reduce(groups, values[positive].double(), len(keys), pooling)
    return _Entries(keys, pooled, samples, tokens)


def _merge(entries: _Entries, d_sae: int, pooling: str) -> _Entries:
    """Pool entries of which several may be of one image and latent."""
    samples, groups = entries.samples.unique(return_inverse=True)
    tokens = _reduce(groups, entries.tokens, len(samples), "sum")
    images, latents = (column.contiguous() for column in entries.keys.unbind(1))
    keys, groups = _distinct(torch.searchsorted(samples, images), latents, samples, d_sae)
    return _Entries(keys, _reduce(groups, entries.values, len(keys), pooling), samples, tokens)


def _distinct(rows: Tensor, latents: Tensor, samples: Tensor, d_sae: int) -> tuple[Tensor, Tensor]:
    """Return the distinct (image, latent), ascending, and which of them each entry is of.

    Sample indices may be any int64: only their position among the images is flattened.
    """
    legend = f"{len(samples)} images and d_sae = {d_sae}"
    keys, groups = pair_keys(rows, latents, len(samples), d_sae, legend).unique(return_inverse=True)
    return torch.stack([samples[keys // d_sae], keys % d_sae], dim=1), groups


def _codes(entries: _Entries, pooling: str) -> PooledCodes:
    """Build the codes from entries of which one is of an image and latent."""
    rows = torch.searchsorted(entries.samples, entries.keys[:, 0].contiguous())
    values = entries.values / entries.tokens[rows] if pooling == "mean" else entries.values
    return PooledCodes(values, entries.keys[:, 1].contiguous(), rows, entries.samples)


def pool_by_sample(
    values: Code,
    indices: Tensor | None = None,
    sample_index: Tensor | None = None,
    d_sae: int | None = None,
    *,
    pooling: Pooling = "max",
) -> PooledCodes:
    """Pool the codes of an image's tokens to one activation per latent.

    All tokens of an image must be in the one call; `ImageCodes` is the streaming form.

    Args:
        values: A `SparseCode`, or activations [tokens, k].
        indices: Latents [tokens, k], integers; a `SparseCode` has them.
        sample_index: Image of each token [tokens], any integers in any order; behind a `SparseCode`
            it may be the second argument.
        d_sae: Number of latents; a `SparseCode` tells it.
        pooling: `max`, or the `mean` over all tokens of the image (those where the latent is
            silent count as zero).

    Returns:
        The pooled codes.

    Raises:
        LightsaeError: If shapes disagree, an index is out of range or `pooling` is unknown.

    Example:
        >>> values = torch.tensor([[1.0, 0.5], [3.0, 2.0]])
        >>> indices = torch.tensor([[0, 2], [2, 1]])
        >>> pooled = pool_by_sample(values, indices, torch.tensor([7, 7]), d_sae=3)
        >>> pooled.values, pooled.indices, pooled.sample_index
        (tensor([1., 2., 3.], dtype=torch.float64), tensor([0, 1, 2]), tensor([7]))
    """
    checked = _checked(values, indices, sample_index, d_sae, pooling)
    return _codes(_of_tokens(*checked, pooling), pooling)


class ImageCodes(ExactMetric):
    """Pooled codes of images whose tokens are spread over batches and ranks.

    Shuffled batches of patch tokens hold pieces of many images. This keeps one entry per (image,
    latent) that fired, so memory grows with the images and not with their tokens: 24 bytes for
    each, at most twice that between compactions. Over several processes `compute` returns the codes
    of all ranks on every rank; the function `monosemanticity` takes them as they are, whereas the
    metric would add them up once per rank.

    Args:
        d_sae: Number of latents.
        pooling: As in `pool_by_sample`.
        **kwargs: Passed to `torchmetrics.Metric`.

    Raises:
        LightsaeError: If `pooling` is unknown.

    Example:
        >>> codes = ImageCodes(d_sae=3)
        >>> codes.update(torch.tensor([[1.0]]), torch.tensor([[2]]), torch.tensor([7]))
        >>> codes.update(torch.tensor([[3.0]]), torch.tensor([[2]]), torch.tensor([7]))
        >>> codes.compute().values
        tensor([3.], dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    keys: list[Tensor]
    values: list[Tensor]
    samples: list[Tensor]
    tokens: list[Tensor]

    def __init__(self, d_sae: int, *, pooling: Pooling = "max", **kwargs: object) -> None:
        super().__init__(**kwargs)
        _check_pooling(pooling)
        self.d_sae = size("d_sae", d_sae)
        self.pooling = pooling
        for name in _Entries._fields:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(
        self,
        values: Code,
        indices: Tensor | None = None,
        sample_index: Tensor | None = None,
    ) -> None:
        """Add a batch of token codes.

        Args:
            values: A `SparseCode`, or activations [tokens, k].
            indices: Latents [tokens, k], integers; a `SparseCode` has them.
            sample_index: Image of each token [tokens], any integers; behind a `SparseCode` it may
                be the second argument.

        Raises:
            LightsaeError: If shapes disagree or an index is out of range.
        """
        checked = _checked(values, indices, sample_index, self.d_sae, self.pooling)
        added = _of_tokens(*checked, self.pooling)
        for name, part in added._asdict().items():
            getattr(self, name).append(part)
        if sum(map(len, self.keys[1:])) > len(self.keys[0]):
            self._keep(self._merged())

    def compute(self) -> PooledCodes:
        """Return the pooled codes of every image seen, over all ranks."""
        self._fill_empty()
        entries = self._merged()
        self._keep(entries)
        return _codes(entries, self.pooling)

    def _merged(self) -> _Entries:
        """One entry per (image, latent)."""
        parts = (dim_zero_cat(getattr(self, name)) for name in _Entries._fields)
        return _merge(_Entries(*parts), self.d_sae, self.pooling)

    def _keep(self, entries: _Entries) -> None:
        """Let the entries be the state."""
        for name, part in entries._asdict().items():
            setattr(self, name, [part])

    def _fill_empty(self) -> None:
        """Give a rank that saw nothing empty parts of the right dtype."""
        if len(self.keys) == 0:
            none = torch.empty(0, dtype=torch.long, device=self.device)
            self._keep(_Entries(none.view(0, 2), none.double(), none, none))

    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors,
        process_group: ProcessGroup | None = None,
    ) -> None:
        """Gather the parts of every rank, those that saw nothing included."""
        self._fill_empty()
        super()._sync_dist(dist_sync_fn, process_group)
