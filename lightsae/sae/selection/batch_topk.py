"""Batch Top-k: the k B largest activations of a batch of B rows (arXiv 2412.06410)."""

from typing import Any

import torch
from lightsae_kernels import EncodeOptions
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.sae.selection.batch_largest import BatchLargest
from lightsae.sae.selection.fused_selection import (
    Found,
    FusedSelection,
    Operation,
    Selection,
    positive,
)
from lightsae.sae.selection.threshold import Threshold

# Candidates of a row: a multiple of these, and so many times what the fullest row of a batch used.
_STEP, _SPARE = 16, 1.25


class BatchTopK(FusedSelection, nn.Module):
    """Keep the k B largest activations of a batch of B rows, over all ranks: k a row on average.

    Ties go to the lower rank, the earlier row, the larger activation's place. A batch with fewer
    positive activations keeps them all.

    A row's candidates are its K largest activations, by the fused Top-k; if a row uses up all of
    its candidates the batch is encoded again with more. Codes have K places; unused ones are 0.

    New inputs are encoded one by one: a latent is active above `threshold`, which follows the
    smallest activation that training batches keep, as a running mean. While it has not been learned
    the batch decides for new inputs, too.

    Args:
        k: Latents kept per row on average.
        threshold_rate: Weight of each training batch in the running mean, above 0, at most 1.

    Attributes:
        threshold: What an activation must exceed, float32 scalar buffer; -1 until it is learned.
        candidates: K, int64 scalar buffer; 0 before the first batch.

    Raises:
        LightsaeError: If k is not an integer or smaller than 1, or threshold_rate out of range.

    Example:
        >>> encoder = torch.eye(3), torch.zeros(3), torch.zeros(3)
        >>> x = torch.tensor([[1.0, 5.0, 3.0], [0.5, 0.0, 0.1]])
        >>> BatchTopK(1).encode(x, encoder).values.count_nonzero(dim=1)
        tensor([2, 0])
    """

    threshold: Tensor
    candidates: Tensor

    def __init__(self, k: int, threshold_rate: float = 0.01) -> None:
        nn.Module.__init__(self)
        self.k = positive("k", k)
        if not 0 < threshold_rate <= 1:
            raise LightsaeError(
                f"threshold_rate must be above 0 and at most 1, got {threshold_rate}"
            )
        self.threshold_rate = threshold_rate
        self.register_buffer("threshold", torch.tensor(-1.0))
        self.register_buffer("candidates", torch.tensor(0))

    def settings(self) -> dict[str, Any]:
        """Arguments that build the same rule again."""
        return {"k": self.k, "threshold_rate": self.threshold_rate}

    def inference(self) -> Selection:
        """The threshold as a rule; the rule itself while there is none."""
        return Threshold(self.k, self.threshold) if float(self.threshold) >= 0 else self

    def run(self, operation: Operation[Found], d_sae: int, options: EncodeOptions) -> Found:
        """See `FusedSelection.run`; also follows the threshold if gradients are made."""
        count = min(max(int(self.candidates), _rounded(2 * self.k)), d_sae)
        while True:
            largest = BatchLargest(self.k, options.get("process_group"))
            found = operation(count, narrow=largest, **options)
            if largest.most < count or count == d_sae:
                break
            count = min(2 * count, d_sae)
        if self.training and torch.is_grad_enabled():
            self._follow(largest, d_sae)
        return found

    @torch.no_grad()
    def _follow(self, largest: BatchLargest, d_sae: int) -> None:
        self.candidates.fill_(min(_rounded(_SPARE * largest.most), d_sae))
        # A batch without a positive activation says nothing.
        new = largest.threshold.to(self.threshold)
        mean = torch.lerp(self.threshold, new, self.threshold_rate)
        mean = torch.where(self.threshold < 0, new, mean)
        self.threshold.copy_(torch.where(new.isinf(), self.threshold, mean))

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
