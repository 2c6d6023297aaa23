"""The B k pairs (sample, latent) of a batch in order of latent: a stable counting sort.

    pairs[offsets[j] : offsets[j + 1]]       the pairs of latent j, samples ascending
    extras[j + 1] - extras[j]                chunks of CHUNK pairs of latent j beyond its first

Four launches, without a wait for the device: the pairs are cut into tiles, (1) each tile counts its
pairs of every latent, (2) the counts before a tile are added up for each latent, (3) the latents'
totals are, (4) each tile puts its pairs in their places, a block at a time. Integer counts do not
depend on the order they are made in. A pair outside the dictionary has no place.

Shapes: indices [P], P = B k, counts [T, N] and runs [T, BLOCK] for T tiles and N latents.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 128
ORDER_DTYPE = torch.int32
# Pairs that a program sorts at a time; tiles and the numbers they may count in.
_BLOCK, _TILES, _COUNTS = 1024, 128, 1 << 24
_BLOCK_N = 2048


@triton.jit
def count_kernel(indices_ptr, counts_ptr, P, N, LENGTH, BLOCK: tl.constexpr, BLOCK_N: tl.constexpr):
    """One program: the latents of one tile of LENGTH pairs."""
    tile = tl.program_id(0).to(tl.int64)
    counts = counts_ptr + tile * N
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        tl.store(counts + n, tl.zeros((BLOCK_N,), tl.int32), mask=n < N)
    tl.debug_barrier()
    for start in range(0, LENGTH, BLOCK):
        place = start + tl.arange(0, BLOCK)
        pair = tile * LENGTH + place
        here = (place < LENGTH) & (pair < P)
        latent = tl.load(indices_ptr + pair, mask=here, other=-1)
        known = (latent >= 0) & (latent < N)
        tl.atomic_add(counts + latent, 1, mask=known, sem="relaxed")


@triton.jit
def tile_starts_kernel(counts_ptr, total_ptr, N, TILES, BLOCK_N: tl.constexpr):
    """One program: for BLOCK_N latents, the count before each tile in place of the tile's own."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    before = tl.zeros((BLOCK_N,), tl.int32)
    for tile in range(0, TILES):
        at = counts_ptr + tl.cast(tile, tl.int64) * N + n
        count = tl.load(at, mask=n < N, other=0)
        tl.store(at, before, mask=n < N)
        before += count
    tl.store(total_ptr + n, before, mask=n < N)


@triton.jit
def latent_starts_kernel(
    total_ptr, offsets_ptr, extras_ptr, N, CHUNK: tl.constexpr, BLOCK_N: tl.constexpr
):
    """The one program: first pair and first further chunk of each latent, and of none."""
    pairs = tl.zeros((), tl.int32)
    chunks = tl.zeros((), tl.int32)
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        total = tl.load(total_ptr + n, mask=n < N, other=0)
        further = tl.maximum((total + CHUNK - 1) // CHUNK, 1) - 1
        further = tl.where(n < N, further, 0)
        tl.store(offsets_ptr + n, pairs + tl.cumsum(total, 0) - total, mask=n < N)
        tl.store(extras_ptr + n, chunks + tl.cumsum(further, 0) - further, mask=n < N)
        pairs += tl.sum(total, axis=0)
        chunks += tl.sum(further, axis=0)
    tl.store(offsets_ptr + N, pairs)
    tl.store(extras_ptr + N, chunks)


@triton.jit
def place_kernel(
    indices_ptr, counts_ptr, offsets_ptr, runs_ptr, pairs_ptr, P, N, LENGTH, BLOCK: tl.constexpr
):
    """One program: the places of the pairs of one tile, BLOCK at a time."""
    tile = tl.program_id(0).to(tl.int64)
    counts, runs = counts_ptr + tile * N, runs_ptr + tile * BLOCK
    at = tl.arange(0, BLOCK)
    for start in range(0, LENGTH, BLOCK):
        pair = tile * LENGTH + start + at
        here = (start + at < LENGTH) & (pair < P)
        latent = tl.load(indices_ptr + pair, mask=here, other=N)
        latent = tl.where((latent >= 0) & (latent < N), latent, N)
        # Sorted by latent and then by pair, so equal latents stand side by side, in order.
        key = tl.sort(latent * BLOCK + at)
        latent = (key // BLOCK).to(tl.int32)
        pair = tile * LENGTH + start + key % BLOCK
        known = latent < N
        before = tl.gather(latent, tl.maximum(at - 1, 0), 0)
        begins = (at == 0) | (latent != before)
        run = tl.cumsum(begins.to(tl.int32), 0) - 1
        tl.store(runs + run, at, mask=begins)
        tl.debug_barrier()
        number = at - tl.load(runs + run, cache_modifier=".cg")
        first = tl.load(offsets_ptr + latent, mask=known, other=0)
        first += tl.load(counts + latent, mask=known, other=0, cache_modifier=".cg")
        tl.store(pairs_ptr + first + number, pair.to(tl.int32), mask=known)
        # The next block begins behind this one.
        tl.debug_barrier()
        tl.atomic_add(counts + latent, 1, mask=known, sem="relaxed")
        tl.debug_barrier()


class LatentOrder(NamedTuple):
    """Pairs by latent, all int32.

    Attributes:
        pairs: Positions in the flattened [B, k], [B k].
        offsets: First pair of each latent, [d_sae + 1].
        extras: First further chunk of each latent, [d_sae + 1].
        chunk: Most pairs of a chunk.
    """

    pairs: Tensor
    offsets: Tensor
    extras: Tensor
    chunk: int = CHUNK

    @property
    def further(self) -> int:
        """Further chunks there can be; the bound spares a GPU the wait for their number."""
        return len(self.pairs) // self.chunk


def latent_order(
    indices: Tensor, d_sae: int, chunk: int = CHUNK, used: Tensor | None = None
) -> LatentOrder:
    """Sort the pairs of indices [B, k] by latent; stable, so that every run adds in one order.

    Pairs that are not used, [B, k] bool, have no place.

    Indices [[2, 0], [2, 1], [2, 0]] of 4 latents, in chunks of 2, have pairs [1, 5, 3, 0, 2, 4],
    offsets [0, 2, 3, 6, 6] and extras [0, 0, 0, 1, 1].
    """
    flat = (indices if used is None else indices.where(used, -1)).reshape(-1)
    P, device = len(flat), flat.device
    sizes = (P, d_sae + 1, d_sae + 1, d_sae)
    pairs, offsets, extras, total = (
        torch.empty(n, dtype=ORDER_DTYPE, device=device) for n in sizes
    )
    tiles = max(1, min(_TILES, -(-P // _BLOCK), _COUNTS // d_sae))
    length = -(-P // tiles)
    counts = torch.empty(tiles, d_sae, dtype=ORDER_DTYPE, device=device)
    block = min(_BLOCK, max(16, triton.next_power_of_2(length)))
    block_n = min(_BLOCK_N, max(16, triton.next_power_of_2(d_sae)))
    runs = torch.empty(tiles, block, dtype=ORDER_DTYPE, device=device)
    narrow = min(256, block_n)
    with torch.cuda.device_of(flat):
        count_kernel[(tiles,)](
            flat, counts, P, d_sae, length, BLOCK=block, BLOCK_N=block_n, num_warps=8
        )
        tile_starts_kernel[(triton.cdiv(d_sae, narrow),)](
            counts, total, d_sae, tiles, BLOCK_N=narrow, num_warps=4
        )
        latent_starts_kernel[(1,)](
            total, offsets, extras, d_sae, CHUNK=chunk, BLOCK_N=block_n, num_warps=8
        )
        place_kernel[(tiles,)](
            flat, counts, offsets, runs, pairs, P, d_sae, length, BLOCK=block, num_warps=16
        )
    return LatentOrder(pairs, offsets, extras, chunk)


def order_sizes(pairs: int, d_sae: int) -> list[int]:
    """How long the tensors of an order are."""
    return [pairs, d_sae + 1, d_sae + 1]
