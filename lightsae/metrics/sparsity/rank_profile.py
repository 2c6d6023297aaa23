"""Rank profile: how fast the activations of a row fall off, before Top-k cuts them."""

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics.code_inputs import require_tensors, size
from lightsae.metrics.sampled_rows import SampledRows, row_ranks

# Of the training k, which a figure marks with a line.
_TIMES_K = 4


class RankProfileCurve:
    """Mean activation at each rank.

    Attributes:
        rank: 1 for the largest activation of a row [ranks], int64.
        activation: Mean over rows [ranks], float64; NaN without rows.
        rows: Rows that the mean is over.
    """

    def __init__(self, rank: Tensor, activation: Tensor, rows: int) -> None:
        self.rank = rank
        self.activation = activation
        self.rows = rows


def _sorted_activations(pre_activations: Tensor, ranks: int) -> Tensor:
    """Return the largest activations of each row, descending, float64 [rows, ranks]."""
    largest: Tensor = pre_activations.detach().topk(ranks, dim=1).values.relu().double()
    return largest


def _rank_profile_compute(kept: Tensor) -> RankProfileCurve:
    """Return the mean over rows [rows, ranks]."""
    rank = torch.arange(1, kept.shape[1] + 1, device=kept.device)
    return RankProfileCurve(rank, kept.mean(0), len(kept))


def _checked(pre_activations: Tensor, d_sae: int | None = None) -> Tensor:
    """Raise on what is no [rows, d_sae]."""
    require_tensors(pre_activations=pre_activations)
    if pre_activations.ndim != 2 or d_sae not in (None, pre_activations.shape[1]):
        expected = f"[rows, {'d_sae' if d_sae is None else d_sae}]"
        raise LightsaeError(
            f"pre_activations has shape {list(pre_activations.shape)}, expected {expected}"
        )
    if not pre_activations.isfinite().all():
        raise LightsaeError("pre_activations must be finite")
    return pre_activations


def rank_profile(pre_activations: Tensor, k: int) -> RankProfileCurve:
    """Mean over rows of the activations in descending order (arXiv 2606.27321).

    `p_r = mean_i (r-th largest of ReLU(pi_i))` for r = 1 ... min(4 k, d_sae): before Top-k, so what
    is behind the k-th place is what Top-k cuts off.

    Args:
        pre_activations: W_enc (x - b_dec) + b_enc [rows, d_sae], as
            `SparseAutoencoder.pre_activations` gives them.
        k: The training k.

    Raises:
        LightsaeError: If they have another shape or are not finite.

    Example:
        >>> profile = rank_profile(torch.tensor([[3.0, -1.0, 1.0], [5.0, 2.0, 0.0]]), k=1)
        >>> profile.rank, profile.activation
        (tensor([1, 2, 3]), tensor([4.0000, 1.5000, 0.0000], dtype=torch.float64))
    """
    ranks = min(_TIMES_K * size("k", k), _checked(pre_activations).shape[1])
    return _rank_profile_compute(_sorted_activations(pre_activations, ranks))


class RankProfile(SampledRows):
    """Mean of the activations in descending order, over a sample of the rows seen.

    Pre-activations are dense, so only `max_rows` rows are looked at. They are chosen by their
    numbers alone, which makes the result the same for any order, batches and ranks. To spare the
    other rows their pre-activations, give `update` the rows that `wanted` names and no others. The
    state is float64 [max_rows, 4 k]. See `rank_profile` for the definition.

    Args:
        d_sae: Number of latents.
        k: The training k; ranks reach to 4 k.
        max_rows: Rows that are looked at, at most.
        rows: Rows that all ranks will see together, if known; then `wanted` names few more than
            `max_rows` of them.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = RankProfile(d_sae=3, k=1)
        >>> for number, row in enumerate(torch.tensor([[3.0, -1.0, 1.0], [5.0, 2.0, 0.0]])):
        ...     metric.update(row[None], torch.tensor([number]))
        >>> metric.compute().activation
        tensor([4.0000, 1.5000, 0.0000], dtype=torch.float64)
    """

    activations: list[Tensor]

    def __init__(
        self, d_sae: int, k: int, max_rows: int = 4096, rows: int | None = None, **kwargs: object
    ) -> None:
        super().__init__(max_rows, rows, **kwargs)
        self.d_sae, self.k = size("d_sae", d_sae), size("k", k)
        self._ranks = min(_TIMES_K * self.k, self.d_sae)
        self._keeps("activations", torch.empty(0, self._ranks, dtype=torch.float64))

    def update(
        self, pre_activations: Tensor, sample_index: Tensor, token_index: Tensor | None = None
    ) -> None:
        """Add rows.

        Args:
            pre_activations: [rows, d_sae], any float dtype.
            sample_index: Image of each row [rows], integers.
            token_index: Token of the image [rows], integers; left out where an image has one row.

        Raises:
            LightsaeError: If shapes disagree, something is not finite, an image is unknown (-1) or
                a row is given twice.
        """
        pre_activations = _checked(pre_activations, self.d_sae)
        require_tensors(pre_activations=pre_activations, sample_index=sample_index)
        if sample_index.shape != pre_activations.shape[:1]:
            raise LightsaeError(
                f"sample_index has shape {list(sample_index.shape)}, "
                f"expected [{len(pre_activations)}]"
            )
        wanted = self.wanted(sample_index, token_index)
        ranks = row_ranks(sample_index, token_index)[wanted]
        self._add(ranks, activations=_sorted_activations(pre_activations[wanted], self._ranks))

    def compute(self) -> RankProfileCurve:
        """Return the mean over the sampled rows of all ranks."""
        self._compact()
        return _rank_profile_compute(self.activations[0])
