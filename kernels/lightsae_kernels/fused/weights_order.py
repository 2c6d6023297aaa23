"""The B k pairs (sample, latent) of a batch in order of latent, cut into chunks of bounded length.

    pairs[offsets[j] : offsets[j + 1]]       the pairs of latent j, samples ascending
    chunk c of latent owner[c]               CHUNK of them, the last one fewer

A latent without pairs has one empty chunk, so that its gradient is written too. A latent with
several chunks leaves a partial sum for each, `slots[j]` is where they begin. All of it is made on
the device without waiting for it: the numbers of chunks and of partial sums are bounds.
"""

from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 128
ORDER_DTYPE = torch.int32


class LatentOrder(NamedTuple):
    """Pairs by latent, all int32.

    Attributes:
        pairs: Positions in the flattened [B, k], [B k].
        offsets: First pair of each latent, [d_sae + 1].
        owner: Latent of each chunk, d_sae for those that do not exist, [chunks].
        first: First chunk of each latent, [d_sae + 1].
        slots: First partial sum of each latent, [d_sae + 1].
        chunk: Most pairs of a chunk.
    """

    pairs: Tensor
    offsets: Tensor
    owner: Tensor
    first: Tensor
    slots: Tensor
    chunk: int = CHUNK

    @property
    def partials(self) -> int:
        """How many partial sums there are; the bound spares a GPU the wait for the number."""
        most = 2 * (len(self.pairs) // self.chunk)
        return most if self.slots.is_cuda else int(self.slots[-1])


def latent_order(indices: Tensor, d_sae: int, chunk: int = CHUNK) -> LatentOrder:
    """Sort the pairs of indices [B, k] by latent; stable, so that every run adds in one order.

    Example:
        >>> order = latent_order(torch.tensor([[2, 0], [2, 1], [2, 0]]), 4, chunk=2)
        >>> order.pairs.tolist(), order.offsets.tolist()
        ([1, 5, 3, 0, 2, 4], [0, 2, 3, 6, 6])
        >>> order.owner.tolist(), order.slots.tolist()
        ([0, 1, 2, 2, 3, 4, 4], [0, 0, 0, 2, 2])
    """
    # A wrong index is flagged where it is used; here it must not come back as another one.
    flat = indices.reshape(-1).clamp(-1, d_sae)
    narrow = flat.to(torch.int16 if d_sae < 1 << 15 else torch.int32)
    latents, pairs = narrow.sort(stable=True)
    every = torch.arange(d_sae + 1, dtype=latents.dtype, device=flat.device)
    offsets = torch.searchsorted(latents, every, out_int32=True)
    count = offsets.diff()
    chunks = ((count + chunk - 1) // chunk).clamp_min_(1)
    first, slots = _starts(chunks), _starts(chunks * (chunks > 1))
    # A latent with c > 1 chunks has more than (c - 1) chunk pairs, and c <= 2 (c - 1).
    bound = d_sae + flat.numel() // chunk
    numbers = torch.arange(bound, dtype=torch.int32, device=flat.device)
    owner = torch.searchsorted(first, numbers, right=True, out_int32=True) - 1
    return LatentOrder(pairs.to(torch.int32), offsets, owner, first, slots, chunk)


def order_sizes(pairs: int, d_sae: int) -> list[int]:
    """How long the tensors of an order are."""
    return [pairs, d_sae + 1, d_sae + pairs // CHUNK, d_sae + 1, d_sae + 1]


def _starts(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
