"""Monosemanticity score: are the images that a latent fires on alike? (Pach et al., 2504.02821).

With w_n the activation on image n, min-max scaled over the set, and e_n the image's unit-norm
embedding under a separate encoder,

    MS = sum_{i<j} w_i w_j cos(e_i, e_j) / sum_{i<j} w_i w_j = (|S|^2 - q) / ((sum w)^2 - q)

where S = sum_n w_n e_n and q = sum_n w_n^2. All three follow from sums over the raw activations and
their range, so one pass is exact.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, segment_reduce

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import Code, after, require_tensors, size, unpacked
from lightsae.metrics.interpretability.monosemanticity_scores import MonosemanticityScores
from lightsae.metrics.interpretability.weighted_rows import add_weighted_rows_
from lightsae.metrics.metric_base import ExactMetric
from lightsae.sae.index_checks import integers, within

# Pair weight over (sum w)^2 below which float64 cannot tell a second activation from none.
_RESOLUTION = 1e-10
# Range over minimum below which the sums over raw activations leave less than six digits of w.
_CONSTANT = 2e-5


class _Moments(NamedTuple):
    """What one pass keeps, float64; `low` is [minimum, number of images at it]."""

    images: Tensor  # []
    sum_e: Tensor  # [d_embed]
    sum_a: Tensor  # [d_sae]
    sum_a2: Tensor  # [d_sae]
    sum_ae: Tensor  # [d_sae, d_embed]
    low: Tensor  # [d_sae, 2]
    high: Tensor  # [d_sae]


def _merge_low(parts: Tensor) -> Tensor:
    """Merge minima and their multiplicities [parts, d_sae, 2]."""
    low, count = parts.unbind(-1)
    minimum = low.amin(0)
    return torch.stack([minimum, (count * (low == minimum)).sum(0)], dim=-1)


_REDUCTIONS: dict[str, str | Callable[[Tensor], Tensor]] = {
    "images": "sum",
    "sum_e": "sum",
    "sum_a": "sum",
    "sum_a2": "sum",
    "sum_ae": "sum",
    "low": _merge_low,
    "high": "max",
}


def _empty_moments(d_sae: int, d_embed: int, device: torch.device | None = None) -> _Moments:
    """Return the moments of no images."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    low = torch.stack([zeros(d_sae) + torch.inf, zeros(d_sae)], dim=-1)
    return _Moments(
        zeros(),
        zeros(d_embed),
        zeros(d_sae),
        zeros(d_sae),
        zeros(d_sae, d_embed),
        low,
        zeros(d_sae),
    )


def _width(embeddings: Tensor) -> int:
    """Return d_embed."""
    require_tensors(embeddings=embeddings)
    if embeddings.ndim != 2:
        raise LightsaeError(
            f"embeddings has shape {list(embeddings.shape)}, expected [images, d_embed]"
        )
    return embeddings.shape[1]


def _unit_rows(embeddings: Tensor) -> Tensor:
    """Return float64 embeddings of norm one."""
    embeddings = embeddings.detach().to(torch.float64, copy=True)
    norms = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
    usable = (norms > 0) & norms.isfinite()
    if not usable.all():
        row = int((~usable).flatten().nonzero()[0])
        raise LightsaeError(f"embeddings row {row} has norm {norms[row].item()}: expected > 0")
    return embeddings.div_(norms)


def _entries(
    values: Tensor, indices: Tensor, rows: Tensor | None, n_images: int, d_sae: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the positive activations with their latents and rows, sorted by latent, then row."""
    if rows is None and values.shape[:1] != (n_images,):
        raise LightsaeError(
            f"values has {len(values)} rows, expected one per embedding: {n_images}"
        )
    if not (values >= 0).all():
        raise LightsaeError("values must be finite and not negative")
    if rows is None:
        rows = torch.arange(n_images, device=values.device).repeat_interleave(
            values.shape[1:].numel()
        )
        values, indices = values.flatten(), indices.flatten()
    else:
        if values.shape != rows.shape:
            raise LightsaeError(f"rows has shape {list(rows.shape)}, expected {list(values.shape)}")
        rows = within("rows", integers("rows", rows), n_images, f"{n_images}")
        rows, values, indices = rows.flatten(), values.flatten(), indices.flatten()
        if not (rows[1:] >= rows[:-1]).all():
            rows, order = rows.sort(stable=True)
            values, indices = values[order], indices[order]
    positive = values > 0
    if not positive.all():
        rows, values, indices = rows[positive], values[positive], indices[positive]
    # Narrow integers sort several times faster.
    narrow = torch.int16 if d_sae <= 2**15 else torch.int32 if d_sae <= 2**31 else torch.int64
    order = indices.to(narrow).sort(stable=True).indices
    rows, indices = rows[order], indices[order]
    if ((rows[1:] == rows[:-1]) & (indices[1:] == indices[:-1])).any():
        raise LightsaeError("a latent occurs twice in one row: pool tokens with pool_by_sample")
    return values[order].double(), indices, rows


def _batch_low(a: Tensor, latents: Tensor, counts: Tensor, n_images: int) -> Tensor:
    """Return [minimum, number of images at it] of a batch, silent images being zeros."""
    smallest = a.new_full(counts.shape, torch.inf).scatter_reduce(0, latents, a, "amin")
    ties = torch.bincount(latents[a == smallest[latents]], minlength=len(counts))
    silent = n_images - counts
    return torch.stack(
        [torch.where(silent > 0, 0, smallest), torch.where(silent > 0, silent, ties)], dim=-1
    )


def _monosemanticity_update(
    moments: _Moments,
    values: Tensor,
    indices: Tensor,
    embeddings: Tensor,
    rows: Tensor | None = None,
) -> _Moments:
    """Add a batch; `sum_ae` is updated in place."""
    require_tensors(
        values=values, embeddings=embeddings, **({} if rows is None else {"rows": rows})
    )
    d_sae, n_images = len(moments.sum_a), len(embeddings)
    unit = _unit_rows(embeddings)
    a, latents, rows = _entries(values, indices, rows, n_images, d_sae)
    if n_images == 0:
        return moments
    counts = torch.bincount(latents, minlength=d_sae)
    add_weighted_rows_(moments.sum_ae, unit, a, rows, counts)
    low = _batch_low(a, latents, counts, n_images)
    return moments._replace(
        images=moments.images + n_images,
        sum_e=moments.sum_e + unit.sum(0),
        sum_a=moments.sum_a + segment_reduce(a, "sum", lengths=counts),
        sum_a2=moments.sum_a2 + segment_reduce(a.square(), "sum", lengths=counts),
        low=_merge_low(torch.stack([moments.low, low])),
        high=moments.high.scatter_reduce(0, latents, a, "amax"),
    )


def _monosemanticity_compute(moments: _Moments) -> MonosemanticityScores:
    """Evaluate the closed form for every latent."""
    images, sum_e, sum_a, sum_a2, sum_ae, low, high = moments
    minimum = low[:, 0].where(low[:, 0].isfinite(), 0)
    span = high - minimum
    sum_w = (sum_a - images * minimum) / span
    q = (sum_a2 - 2 * minimum * sum_a + images * minimum.square()) / span.square()
    s = torch.linalg.vector_norm(torch.addr(sum_ae, minimum, sum_e, alpha=-1), dim=1) / span
    pairs = sum_w.square() - q
    told_apart = (pairs > _RESOLUTION * sum_w.square()) & (span > _CONSTANT * minimum)
    scored = (images - low[:, 1] >= 2) & told_apart
    scores = ((s.square() - q) / pairs).where(scored, torch.nan)
    dead = high == 0
    return MonosemanticityScores(scores, dead, ~dead & ~scored)


def monosemanticity(
    values: Code,
    indices: Tensor | None = None,
    embeddings: Tensor | None = None,
    d_sae: int | None = None,
    *,
    rows: Tensor | None = None,
) -> MonosemanticityScores:
    """Monosemanticity score of every latent over a set of images.

    Args:
        values: A `SparseCode`, or activations, finite and not negative: [images, k], or [entries]
            with `rows`. No latent twice in one image.
        indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
        embeddings: Embedding of each image [images, d_embed] from a separate encoder; scaled to
            unit norm here. Scores under different encoders do not compare. Behind a `SparseCode`
            it may be the second argument.
        d_sae: Number of latents; a `SparseCode` tells it.
        rows: Image of each entry [entries], integers, where the number of latents varies.

    Returns:
        The scores, with dead and undefined latents marked.

    Raises:
        LightsaeError: If shapes disagree, an index is out of range, an activation is negative or
            not finite, a latent occurs twice in an image or an embedding is zero or not finite.

    Example:
        >>> values = torch.tensor([[1.0], [2.0], [3.0], [1.0]])
        >>> indices = torch.tensor([[0], [0], [0], [1]])
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> result = monosemanticity(values, indices, embeddings, d_sae=3)
        >>> result
        MonosemanticityScores(mean=0.1818, median=0.1818, scored=1, dead=1, undefined=1)
        >>> result.scores
        tensor([0.1818,    nan,    nan], dtype=torch.float64)
    """
    indices, embeddings = after(values, indices, embeddings, "embeddings")
    values, indices, d_sae = unpacked(values, indices, d_sae)
    moments = _empty_moments(d_sae, _width(embeddings), values.device)
    moments = _monosemanticity_update(moments, values, indices, embeddings, rows)
    return _monosemanticity_compute(moments)


class Monosemanticity(ExactMetric):
    """Monosemanticity score of every latent, exact in one pass and merged exactly over ranks.

    Each image must be given once: patch tokens are pooled first, by `pool_by_sample` or, when an
    image's tokens are spread over batches, by `ImageCodes`; their entries are given with `rows`.
    The state is float64 [d_sae, d_embed] and a few vectors; an update of n images costs
    O(n k d_embed). See `monosemanticity` for the definition.

    Args:
        d_sae: Number of latents.
        d_embed: Width of the embeddings.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> from lightsae.sae import SparseCode
        >>> code = SparseCode(torch.ones(2, 1), torch.tensor([[0], [0]]), d_sae=3)
        >>> metric = Monosemanticity(d_sae=3, d_embed=2)
        >>> metric.update(code, torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
        >>> metric.update(torch.ones(1, 1), torch.tensor([[1]]), torch.tensor([[0.0, 1.0]]))
        >>> metric.compute().scores
        tensor([0.6000,    nan,    nan], dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, d_sae: int, d_embed: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_sae, self.d_embed = size("d_sae", d_sae), size("d_embed", d_embed)
        for name, empty in _empty_moments(self.d_sae, self.d_embed)._asdict().items():
            self.add_state(name, empty, dist_reduce_fx=_REDUCTIONS[name])

    def update(
        self,
        values: Code,
        indices: Tensor | None = None,
        embeddings: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> None:
        """Add images.

        Args:
            values: A `SparseCode`, or activations: [images, k], or [entries] with `rows`.
            indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
            embeddings: Embedding of each image [images, d_embed], any positive norm; behind a
                `SparseCode` it may be the second argument.
            rows: Image of each entry, as a row of `embeddings` [entries], integers.

        Raises:
            LightsaeError: As in `monosemanticity`, or if the width is not `d_embed`.
        """
        indices, embeddings = after(values, indices, embeddings, "embeddings")
        values, indices, _ = unpacked(values, indices, self.d_sae)
        if _width(embeddings) != self.d_embed:
            raise LightsaeError(
                f"embeddings has shape {list(embeddings.shape)}, expected [images, {self.d_embed}]"
            )
        moments = _monosemanticity_update(self._moments(), values, indices, embeddings, rows)
        for name, moment in moments._asdict().items():
            setattr(self, name, moment)

    def compute(self) -> MonosemanticityScores:
        """Return the scores of all latents."""
        return _monosemanticity_compute(self._moments())

    def _moments(self) -> _Moments:
        """Return the state under its names."""
        return _Moments(*(getattr(self, name) for name in _Moments._fields))
