"""The M largest activations of a batch, over all ranks: exactly M, whatever ties there are.

Bits of positive floats have the order of the floats, so the M-th largest is found digit by digit
from counts, which ranks add up; nothing but counts is exchanged.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

_DIGIT = 16


class BatchLargest:
    """Marks the k B largest positive activations of a batch of B rows, over all ranks.

    Ties go to the lower rank, the earlier row, the earlier place. It is what
    `lightsae_kernels.encode_topk` takes as `narrow`.

    Args:
        k: Latents kept per row on average.
        process_group: Ranks that share the batch.

    Attributes:
        threshold: Smallest activation that was marked, a scalar; inf where none is.
        most: Most marks of a row, over all ranks.
        enough: Whether there were k B to be marked.

    Example:
        >>> narrow = BatchLargest(k=1)
        >>> values = torch.tensor([[5.0, 4.0], [3.0, 3.0]])
        >>> narrow(values, torch.zeros(2, 2, dtype=torch.int64))
        tensor([[ True,  True],
                [False, False]])
        >>> narrow.threshold, narrow.most
        (tensor(4.), 2)
    """

    def __init__(self, k: int, process_group: ProcessGroup | None = None) -> None:
        self.k, self._group = k, process_group
        self.threshold = torch.tensor(torch.inf)
        self.most, self.enough = 0, False

    def __call__(self, values: Tensor, indices: Tensor) -> Tensor:
        """Which places are marked, [B, K] bool.

        Args:
            values: Activations, none negative, [B, K].
            indices: Their latents, [B, K].
        """
        wide = values if values.dtype == torch.float64 else values.float()
        bits = wide.contiguous().view(torch.int64 if wide.dtype == torch.float64 else torch.int32)
        marked = self._mark(bits) if self._group is None else self._mark_over_ranks(bits.long())
        found = wide.where(marked, torch.inf)
        self.threshold = found.amin() if marked.numel() else found.new_full((), torch.inf)
        most = (
            marked.sum(dim=1).amax() if marked.numel() else marked.new_zeros((), dtype=torch.long)
        )
        if self._group is not None:
            dist.all_reduce(self.threshold, op=dist.ReduceOp.MIN, group=self._group)
            dist.all_reduce(most, op=dist.ReduceOp.MAX, group=self._group)
        self.most = int(most)
        return marked

    def _mark(self, bits: Tensor) -> Tensor:
        """Where one process has the whole batch."""
        wanted, positive = self.k * len(bits), bits > 0
        found = bits[positive]
        self.enough = len(found) >= wanted
        if len(found) <= wanted:
            return positive
        bound = found.kthvalue(len(found) - wanted + 1).values
        room = wanted - (found > bound).sum()
        if (found == bound).sum() == room:
            return bits >= bound
        equal = bits == bound
        ties = equal.reshape(-1).cumsum(0).view_as(equal)
        return (bits > bound) | (equal & (ties <= room))

    def _mark_over_ranks(self, bits: Tensor) -> Tensor:
        """Where ranks share it."""
        wanted = self.k * self._summed(torch.tensor(len(bits), device=bits.device))
        total = self._summed((bits > 0).sum())
        self.enough = bool(total >= wanted)
        bound, room = self._bound(bits, torch.minimum(wanted, total))
        equal = bits == bound
        ties = equal.reshape(-1).cumsum(0).view_as(equal)
        return (bits > bound) | (equal & (ties <= room - self._ties_before(equal)))

    def _bound(self, bits: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """Bits of the smallest marked activation, and how many equal to it are marked."""
        positive, none = bits > 0, left == 0
        prefix = bits.new_zeros(())
        top = 48 if bits.numel() and bits.max() > 1 << 32 else 16
        level = torch.tensor(top, device=bits.device)
        dist.all_reduce(level, op=dist.ReduceOp.MAX, group=self._group)
        top = int(level)
        for shift in range(top, -1, -_DIGIT):
            inside = positive & (bits >> (shift + _DIGIT) == prefix)
            digits = (bits >> shift & 0xFFFF)[inside]
            histogram = self._summed(torch.bincount(digits, minlength=1 << _DIGIT))
            above = histogram.flip(0).cumsum(0).flip(0)
            # The largest digit that leaves enough at or above it; 0 of none.
            digit = ((above >= left.clamp_min(1)).sum() - 1).clamp_min(0)
            left = left - (above[digit] - histogram[digit])
            prefix = (prefix << _DIGIT) | digit
        return torch.where(none, torch.iinfo(torch.int64).max, prefix), left

    def _ties_before(self, equal: Tensor) -> Tensor:
        """Activations equal to the smallest marked one on the ranks before this one."""
        mine = equal.sum()
        ranks = dist.get_world_size(self._group)
        found = [torch.zeros_like(mine) for _ in range(ranks)]
        dist.all_gather(found, mine, group=self._group)
        return torch.stack(found)[: dist.get_rank(self._group)].sum()

    def _summed(self, counts: Tensor) -> Tensor:
        dist.all_reduce(counts, group=self._group)
        return counts
