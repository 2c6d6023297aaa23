"""Batch Top-k: the k B largest activations of a batch of B rows (arXiv 2412.06410)."""

import copy
from typing import Any

import torch
import torch.distributed as dist
from lightsae_kernels import EncodeOptions, encode_topk
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from lightsae.errors import LightsaeError
from lightsae.sae.selection.batch_largest import BatchLargest
from lightsae.sae.selection.fused_selection import (
    Batch,
    Found,
    FusedSelection,
    Operation,
    Selection,
    positive,
)
from lightsae.sae.selection.threshold import Threshold

# Candidates of a row on a GPU: a multiple of these, and so many times what the fullest row used.
_STEP, _SPARE = 16, 1.25
# On the CPU candidates are above so much of the last threshold.
_BELOW = 0.93
# Shares of the bound that are tried one after the other.
_LOWERED = (1.0, 0.5, 0.25, 0.0)
_SAMPLED_ROWS = 64


class BatchTopK(FusedSelection, nn.Module):
    """Keep the k B largest activations of a batch of B rows, over all ranks: k a row on average.

    Ties go to the lower rank, the earlier row, the larger activation's place. A batch with fewer
    positive activations keeps them all.

    On the CPU the candidates are all activations above a bound somewhat below the last batch's
    smallest selected one, on a GPU the K largest of each row by the fused Top-k; if they turn out
    to be too few the batch is encoded again with more, so that the result does not depend on the
    guess. Codes have as many places as that takes; unused ones are 0.

    New inputs are encoded one by one: a latent is active above `threshold`, which follows the
    smallest activation that training batches keep, as a running mean. While it has not been learned
    the batch decides for new inputs, too.

    Args:
        k: Latents kept per row on average.
        threshold_rate: Weight of a training batch in the running mean, above 0, at most 1; the
            first 1 / threshold_rate batches are averaged with equal weights. A small rate comes too
            late in short runs, in which activations shrink.

    Attributes:
        threshold: What an activation must exceed, float32 scalar buffer; -1 until it is learned.
        batches: How many it has been learned from, int64 scalar buffer.

    Raises:
        LightsaeError: If k is not an integer or smaller than 1, or threshold_rate out of range.

    Example:
        >>> encoder = torch.eye(3), torch.zeros(3), torch.zeros(3)
        >>> x = torch.tensor([[1.0, 5.0, 3.0], [0.5, 0.0, 0.1]])
        >>> BatchTopK(1).encode(x, encoder).values.count_nonzero(dim=1)
        tensor([2, 0])
    """

    threshold: Tensor
    batches: Tensor

    def __init__(self, k: int, threshold_rate: float = 0.1) -> None:
        nn.Module.__init__(self)
        self.k = positive("k", k)
        if not 0 < threshold_rate <= 1:
            raise LightsaeError(
                f"threshold_rate must be above 0 and at most 1, got {threshold_rate}"
            )
        self.threshold_rate = threshold_rate
        self.register_buffer("threshold", torch.tensor(-1.0))
        self.register_buffer("batches", torch.tensor(0))
        self._last_threshold: float | None = None
        self._candidates = _rounded(2 * k)

    def settings(self) -> dict[str, Any]:
        """Arguments that build the same rule again."""
        return {"k": self.k, "threshold_rate": self.threshold_rate}

    def inference(self) -> Selection:
        """The threshold as a rule; while there is none, a copy of this one that learns nothing."""
        if float(self.threshold) >= 0:
            return Threshold(self.k, self.threshold)
        untaught = copy.copy(self)
        untaught.training = False
        return untaught

    def learned(self) -> dict[str, Tensor]:
        """The threshold, which is -1 until there is one."""
        return {"threshold": self.threshold}

    def run(self, operation: Operation[Found], batch: Batch, options: EncodeOptions) -> Found:
        """See `FusedSelection.run`; also follows the threshold if gradients are made."""
        found, largest = self.select(operation, batch, options)
        if self.training and torch.is_grad_enabled():
            self._follow(largest.threshold)
        return found

    def select(
        self, operation: Operation[Found], batch: Batch, options: EncodeOptions
    ) -> tuple[Found, BatchLargest]:
        """What the operation finds, and how it was narrowed; the arguments are those of `run`."""
        group = options.get("process_group")
        if batch.x.is_cpu:
            return self._by_bound(operation, batch, options, group)
        return self._by_rank(operation, batch.d_sae, options, group)

    def _by_rank(
        self, operation: Operation[Found], d_sae: int, options: EncodeOptions,
        group: ProcessGroup | None,
    ) -> tuple[Found, BatchLargest]:  # fmt: skip
        """From the largest activations of each row, as many as no row uses up."""
        count = min(self._candidates, d_sae)
        while True:
            largest = BatchLargest(self.k, group)
            found = operation(count, narrow=largest, **options)
            if largest.most < count or count == d_sae:
                self._candidates = _rounded(_SPARE * largest.most)
                return found, largest
            count = min(2 * count, d_sae)

    def _by_bound(
        self, operation: Operation[Found], batch: Batch, options: EncodeOptions,
        group: ProcessGroup | None,
    ) -> tuple[Found, BatchLargest]:  # fmt: skip
        """From all activations above a bound, as low as leaves enough of them."""
        expected, k = _BELOW * self._expected_threshold(batch, group), min(self.k, batch.d_sae)
        shares = iter(_LOWERED)
        while True:
            bound = next(shares) * expected
            largest, above = BatchLargest(self.k, group), batch.x.new_tensor(bound)
            found = operation(k, above=above, narrow=largest, **options)
            if largest.enough or bound == 0:
                # A batch that keeps all its activations says that the next may, too.
                self._last_threshold = float(largest.threshold) if largest.enough else 0.0
                return found, largest

    def _expected_threshold(self, batch: Batch, group: ProcessGroup | None) -> float:
        """That of the last batch; at first that of a few rows, the same on all ranks."""
        if self._last_threshold is not None:
            return self._last_threshold
        largest = BatchLargest(self.k)
        with torch.no_grad():
            encode_topk(
                batch.x[:_SAMPLED_ROWS], *batch.encoder, batch.d_sae, narrow=largest
            )  # fmt: skip
        found = torch.where(largest.threshold.isfinite(), largest.threshold, 0.0)
        if group is not None:
            dist.all_reduce(found, op=dist.ReduceOp.MIN, group=group)
        return float(found)

    @torch.no_grad()
    def _follow(self, found: Tensor) -> None:
        """Move the threshold towards that of a batch; one without activations says nothing."""
        new, seen = found.to(self.threshold), found.isfinite()
        self.batches += seen.to(self.batches)
        share = (1 / self.batches.clamp_min(1)).clamp_min(self.threshold_rate)
        self.threshold.copy_(
            torch.where(seen, torch.lerp(self.threshold, new, share), self.threshold)
        )

    def _apply(self, fn: Any, recurse: bool = True) -> "BatchTopK":
        """Move; the threshold stays in float32."""
        before = self.threshold
        super()._apply(fn, recurse)
        moved = self.threshold
        if moved.dtype != torch.float32:
            self.threshold = moved.float() if moved.is_meta else before.to(moved.device)
        return self


def _rounded(count: float) -> int:
    """The next multiple of the step."""
    return -(-int(count) // _STEP) * _STEP
