"""One activation per image and latent, from the codes of its tokens."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from lightsae.errors import LightsaeError

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


def _checked(
    values: Tensor, indices: Tensor, sample_index: Tensor, d_sae: int, pooling: str
) -> None:
    """Raise on arguments that do not fit together."""
    if pooling not in ("max", "mean"):
        raise LightsaeError(f"pooling is {pooling!r}, expected 'max' or 'mean'")
    if values.ndim != 2 or values.shape != indices.shape:
        raise LightsaeError(
            f"values and indices have shapes {list(values.shape)} and {list(indices.shape)}, "
            "expected [tokens, k] for both"
        )
    if sample_index.shape != values.shape[:1]:
        raise LightsaeError(
            f"sample_index has shape {list(sample_index.shape)}, expected [{len(values)}]"
        )
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < d_sae:
        raise LightsaeError(f"indices must lie in [0, d_sae = {d_sae})")


def _reduce_keys(keys: Tensor, values: Tensor, pooling: str) -> tuple[Tensor, Tensor]:
    """Return the ascending distinct keys and the maximum (or sum) of the values of each."""
    keys, inverse = keys.unique(return_inverse=True)
    reduced = values.new_zeros(len(keys)).scatter_reduce(
        0, inverse, values, "amax" if pooling == "max" else "sum", include_self=False
    )
    return keys, reduced


def _token_entries(
    values: Tensor, indices: Tensor, sample_index: Tensor, d_sae: int
) -> tuple[Tensor, Tensor]:
    """Return sample * d_sae + latent and the value of every positive activation."""
    positive = values > 0
    keys = sample_index.unsqueeze(1) * d_sae + indices
    return keys[positive], values[positive].double()


def _pooled(
    keys: Tensor, values: Tensor, samples: Tensor, tokens: Tensor, d_sae: int, pooling: str
) -> PooledCodes:
    """Build the codes from reduced entries and the token count of every sample."""
    rows = torch.searchsorted(samples, keys // d_sae)
    if pooling == "mean":
        values = values / tokens[rows]
    return PooledCodes(values, keys % d_sae, rows, samples)


def pool_by_sample(
    values: Tensor,
    indices: Tensor,
    sample_index: Tensor,
    d_sae: int,
    *,
    pooling: Pooling = "max",
) -> PooledCodes:
    """Pool the codes of an image's tokens to one activation per latent.

    All tokens of an image must be in the one call; `ImageCodes` is the streaming form.

    Args:
        values: Activations [tokens, k].
        indices: Latents [tokens, k], int64.
        sample_index: Image of each token [tokens], int64, in any order.
        d_sae: Number of latents.
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
    _checked(values, indices, sample_index, d_sae, pooling)
    samples, tokens = sample_index.unique(return_counts=True)
    keys, entries = _token_entries(values, indices, sample_index, d_sae)
    keys, entries = _reduce_keys(keys, entries, pooling)
    return _pooled(keys, entries, samples, tokens, d_sae, pooling)


class ImageCodes(Metric):
    """Pooled codes of images whose tokens are spread over batches and ranks.

    Shuffled batches of patch tokens hold pieces of many images. This keeps one entry per (image,
    latent) that fired, so memory grows with the images and not with their tokens: 16 bytes for
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
        if pooling not in ("max", "mean"):
            raise LightsaeError(f"pooling is {pooling!r}, expected 'max' or 'mean'")
        self.d_sae = d_sae
        self.pooling = pooling
        for name in ("keys", "values", "samples", "tokens"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, values: Tensor, indices: Tensor, sample_index: Tensor) -> None:
        """Add a batch of token codes.

        Args:
            values: Activations [tokens, k].
            indices: Latents [tokens, k], int64.
            sample_index: Image of each token [tokens], int64.

        Raises:
            LightsaeError: If shapes disagree or an index is out of range.
        """
        _checked(values, indices, sample_index, self.d_sae, self.pooling)
        samples, tokens = sample_index.unique(return_counts=True)
        keys, entries = _token_entries(values.detach(), indices, sample_index, self.d_sae)
        keys, entries = _reduce_keys(keys, entries, self.pooling)
        self.keys.append(keys)
        self.values.append(entries)
        self.samples.append(samples)
        self.tokens.append(tokens)
        if sum(map(len, self.keys[1:])) > len(self.keys[0]):
            self._compact()

    def compute(self) -> PooledCodes:
        """Return the pooled codes of every image seen, over all ranks."""
        self._fill_empty()
        self._compact()
        state = (self.keys[0], self.values[0], self.samples[0], self.tokens[0])
        return _pooled(*state, self.d_sae, self.pooling)

    def _compact(self) -> None:
        """Leave one entry per (image, latent)."""
        keys, values = dim_zero_cat(self.keys), dim_zero_cat(self.values)
        samples, tokens = dim_zero_cat(self.samples), dim_zero_cat(self.tokens)
        keys, values = _reduce_keys(keys, values, self.pooling)
        samples, tokens = _reduce_keys(samples, tokens, "sum")
        self.keys, self.values, self.samples, self.tokens = [keys], [values], [samples], [tokens]

    def _fill_empty(self) -> None:
        """Give a rank that saw nothing empty parts of the right dtype."""
        if len(self.keys) == 0:
            none = torch.empty(0, dtype=torch.long, device=self.device)
            self.keys, self.values, self.samples, self.tokens = (
                [none],
                [none.double()],
                [none],
                [none],
            )

    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors,
        process_group: ProcessGroup | None = None,
    ) -> None:
        """Gather the parts of every rank, those that saw nothing included."""
        self._fill_empty()
        super()._sync_dist(dist_sync_fn, process_group)
