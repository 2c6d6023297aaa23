"""Exact Top-k in two stages; ties go to the lowest index.

The k-th largest group maximum bounds the k-th largest value from below, so the Top-k of a row lies
in the k groups with the largest maxima. Groups are contiguous and those at the threshold are taken
from the left, so every group left out lies to the right of one that holds an equal value.

The maxima come out of the product, or are taken here from a row of pre-activations, in one pass,
with the sums that an unmasked Reg 2 wants.

Non-negative floats order as their bits do: the threshold is found bit by bit, one count each, and a
cumulative sum compacts what is taken. Nothing is compared twice and no order is left to chance.

A support that is given instead reads values[i, s] = a[i, indices[i, s]]; an index outside the
dictionary reads nothing and raises the flag, as an infinite value does. NaN and -inf count as inf:
the largest of their row is selected, and is seen there.

Shapes: maxima [B, M] with 16 dividing M, z [B, N] pre-activations or activations, groups [B, K]
int32, values and indices [B, K], norms [B, 2] float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightsae_kernels.fault_flags import Flag
from lightsae_kernels.fused.tile_configs import programs

_SCANNED = 4096


@triton.jit
def rectified(z):
    """ReLU; NaN and -inf become inf."""
    a = tl.where(z > 0, z, tl.where(z > float("-inf"), 0.0, float("inf")))
    return a.to(z.dtype)


@triton.jit
def largest(bits, K, BITS: tl.constexpr):
    """Mark the K largest of each row of integers, the leftmost among equals; never a -1."""
    threshold = tl.zeros((bits.shape[0], 1), tl.int32)
    for step in tl.static_range(BITS):
        trial = threshold | (1 << (BITS - 1 - step))
        count = tl.sum((bits >= trial).to(tl.int32), axis=1, keep_dims=True)
        threshold = tl.where(count >= K, trial, threshold)
    above = bits > threshold
    equal = bits == threshold
    room = K - tl.sum(above.to(tl.int32), axis=1, keep_dims=True)
    return above | (equal & (tl.cumsum(equal.to(tl.int32), 1) <= room))


@triton.jit
def bits_of(values):
    """Bits of non-negative floats as int32, in the same order."""
    if values.dtype.primitive_bitwidth == 16:
        return values.to(tl.int16, bitcast=True).to(tl.int32)
    else:
        return values.to(tl.int32, bitcast=True)


@triton.jit
def values_of(bits, dtype: tl.constexpr):
    """The floats that have these bits."""
    if dtype.primitive_bitwidth == 16:
        return bits.to(tl.int16).to(dtype, bitcast=True)
    else:
        return bits.to(dtype, bitcast=True)


@triton.jit
def descending(value, index, here):
    """Sort each row by value, then by index ascending; entries that are not here come last."""
    key = (bits_of(value).to(tl.int64) << 32) | (0x7FFFFFFF - index)
    key = tl.sort(tl.where(here, key, -1), dim=1, descending=True)
    ordered = values_of((key >> 32).to(tl.int32), value.dtype)
    return ordered, 0x7FFFFFFF - (key & 0x7FFFFFFF)


@triton.jit
def scan_rows(
    z_ptr, maxima_ptr, norms_ptr, row, real, N, M,
    GROUP: tl.constexpr, NORMS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Read whole rows once: store their group maxima, and the row sums and sums of squares."""
    l1 = tl.zeros((row.shape[0], BLOCK_N), tl.float32)
    squares = tl.zeros((row.shape[0], BLOCK_N), tl.float32)
    for start in range(0, N, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)[None, :]
        z = tl.load(z_ptr + row * N + column, mask=real & (column < N), other=0.0)
        a = rectified(z).to(tl.float32)
        tile = tl.reshape(a, (row.shape[0], BLOCK_N // GROUP, GROUP))
        group = start // GROUP + tl.arange(0, BLOCK_N // GROUP)[None, :]
        maxima = tl.max(tile, axis=2).to(z.dtype)
        tl.store(maxima_ptr + row * M + group, maxima, mask=real & (group < M))
        if NORMS:
            l1 += a
            squares += a * a
    if NORMS:
        tl.store(norms_ptr + 2 * row, tl.sum(l1, axis=1, keep_dims=True), mask=real)
        tl.store(norms_ptr + 2 * row + 1, tl.sum(squares, axis=1, keep_dims=True), mask=real)


@triton.jit
def select_kernel(
    z_ptr,
    maxima_ptr,
    norms_ptr,
    groups_ptr,
    values_ptr,
    indices_ptr,
    active_ptr,
    flag_ptr,
    fault_ptr,
    B,
    N,
    M,
    K,
    SCAN: tl.constexpr,
    NORMS: tl.constexpr,
    GROUP: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One program: BLOCK_B rows; the groups, then the values, then their order."""
    row = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    real = (row < B)[:, None]
    row = row.to(tl.int64)[:, None]
    if SCAN:
        scan_rows(z_ptr, maxima_ptr, norms_ptr, row, real, N, M, GROUP, NORMS, BLOCK_N)
        tl.debug_barrier()
    m = tl.arange(0, BLOCK_M)[None, :]
    maxima = tl.load(maxima_ptr + row * M + m, mask=real & (m < M), other=0.0)
    taken = largest(tl.where(real & (m < M), bits_of(maxima), -1), K, BITS)
    slot = tl.cumsum(taken.to(tl.int32), 1) - 1
    group = m + tl.zeros((BLOCK_B, 1), tl.int32)
    tl.store(groups_ptr + row * K + slot, group, mask=taken)
    tl.debug_barrier()
    place = tl.arange(0, BLOCK_K * GROUP)[None, :]
    within = real & (place // GROUP < K)
    group = tl.load(groups_ptr + row * K + place // GROUP, mask=within, other=0)
    column = group * GROUP + place % GROUP
    listed = within & (column < N)
    a = tl.load(z_ptr + row * N + column, mask=listed, other=0.0)
    if SCAN:
        a = rectified(a)
    bits = tl.where(listed, bits_of(a), -1)
    taken = largest(bits, K, BITS)
    slot = tl.cumsum(taken.to(tl.int32), 1) - 1
    # From its bits, so that no second form of a value waits in registers.
    tl.store(values_ptr + row * K + slot, values_of(bits, a.dtype), mask=taken)
    tl.store(indices_ptr + row * K + slot, column.to(tl.int64), mask=taken)
    tl.debug_barrier()
    s = tl.arange(0, BLOCK_K)[None, :]
    here = real & (s < K)
    value = tl.load(values_ptr + row * K + s, mask=here, other=0.0)
    index = tl.load(indices_ptr + row * K + s, mask=here, other=0)
    value, index = descending(value, index, here)
    tl.debug_barrier()
    tl.store(values_ptr + row * K + s, value, mask=here)
    tl.store(indices_ptr + row * K + s, index, mask=here)
    tl.store(active_ptr + tl.where(here, index, 0), tl.full(here.shape, 1, tl.int8), mask=here)
    infinite = here & (value.to(tl.float32) == float("inf"))
    raised = tl.max(infinite.to(tl.int32)) > 0
    tl.store(flag_ptr, 1, mask=raised)
    tl.store(fault_ptr, 1, mask=raised)


@triton.jit
def select_given_kernel(
    z_ptr, values_ptr, indices_ptr, active_ptr, flag_ptr, fault_ptr, B, N, K,
    BLOCK_B: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_B rows."""
    row = (tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B))[:, None]
    s = tl.arange(0, BLOCK_K)[None, :]
    here = (row < B) & (s < K)
    at = row.to(tl.int64) * K + s
    index = tl.load(indices_ptr + at, mask=here, other=0)
    known = here & (index >= 0) & (index < N)
    value = rectified(tl.load(z_ptr + row.to(tl.int64) * N + index, mask=known, other=0.0))
    tl.store(values_ptr + at, value, mask=here)
    tl.store(active_ptr + index, tl.full(here.shape, 1, tl.int8), mask=known)
    wrong = (here & (index >= N)) | (index < 0) | (value.to(tl.float32) == float("inf"))
    raised = tl.max(wrong.to(tl.int32)) > 0
    tl.store(flag_ptr, 1, mask=raised)
    tl.store(fault_ptr, 1, mask=raised)


def group_size(N: int, k: int, widest: int = 64) -> int:
    """Columns per group: the power of two next below sqrt(N / k), so that both stages are equal.

    Both then look at about sqrt(N k) elements. A group lies in one tile of the product.

    Args:
        N: Columns of a row.
        k: How many are selected.
        widest: Columns of a tile, a power of two.

    Example:
        >>> group_size(65536, 64), group_size(8192, 32), group_size(40, 20)
        (32, 16, 1)
    """
    size = 1
    while size < min(widest, 64) and 4 * size * size * k <= N:
        size *= 2
    return size


def maxima_columns(N: int, group: int) -> int:
    """Maxima of a row, filled up with zeros to whole 16s: rows that begin anywhere spill registers.

    A zero behind the last group is never chosen before it: ties go to the left, and k groups exist.

    Args:
        N: Columns of `a`.
        group: Columns per group.

    Example:
        >>> maxima_columns(40, 2)
        32
    """
    return -(-N // group // 16) * 16


def select_programs(
    maxima: int, candidates: int, N: int, device: torch.device, *, scan: bool = False
) -> tuple[int, int]:
    """Rows and warps of a program; few warps, because each count is added up across them."""
    widest = max(maxima, candidates)
    rows, warps = programs(widest, device, per_warp=512)
    if scan:
        # One row is a block of columns after the other, which a few warps would wait for.
        return rows, max(warps, 8)
    # 16 elements a thread spill on sm_80, and where 16 does not divide N 8 of them on sm_90.
    return rows, 32 if widest == 8192 and N % 16 == 0 else warps


def scanned_columns(N: int, group: int) -> int:
    """Columns that are read at a time: no more than cover a row and its maxima, in whole groups.

    Example:
        >>> scanned_columns(65536, 32), scanned_columns(20, 4)
        (4096, 64)
    """
    return min(_SCANNED, max(int(triton.next_power_of_2(N)), 16 * group))


def select(
    z: Tensor,
    maxima: Tensor,
    values: Tensor,
    indices: Tensor,
    active: Tensor,
    flag: Flag,
    group: int,
    *,
    scan: bool = False,
    norms: Tensor | None = None,
) -> None:
    """Select the k largest of each row of ReLU(z), values descending, and mark their latents.

    Args:
        z: Activations, or pre-activations where they are scanned, [B, N].
        maxima: Maxima of groups of `group` contiguous columns, at least k, then zeros: [B,
            maxima_columns(N, group)], dtype of `z`.
        values: To be written, [B, k], dtype of `z`.
        indices: To be written, [B, k], int64.
        active: Set to 1 where a latent is selected, [N], int8.
        flag: Raised if a selected value is infinite.
        group: Columns per group.
        scan: Make the maxima first.
        norms: Receives the sum and the sum of squares of each row, [B, 2] float32, where scanned.
    """
    (B, N), M, K = z.shape, maxima.shape[1], values.shape[1]
    groups = torch.empty(B, K, dtype=torch.int32, device=z.device)
    block_m, block_k = triton.next_power_of_2(M), max(2, triton.next_power_of_2(K))
    rows, warps = select_programs(block_m, block_k * group, N, z.device, scan=scan)
    select_kernel[(triton.cdiv(B, rows),)](
        z, maxima, norms, groups, values, indices, active, flag.told, flag.fault, B, N, M, K,
        SCAN=scan, NORMS=norms is not None, GROUP=group, BITS=8 * z.element_size() - 1,
        BLOCK_B=rows, BLOCK_N=scanned_columns(N, group), BLOCK_M=block_m, BLOCK_K=block_k,
        num_warps=warps,
    )  # fmt: skip


def select_in_banks(
    z: Tensor, values: Tensor, indices: Tensor, active: Tensor, flag: Flag, bank: int
) -> None:
    """Select from every `bank` consecutive columns alone; each is a row of its own for the kernel.

    Args:
        z: Activations or pre-activations, [B, N]; its rows are contiguous.
        values: To be written, [B, k], descending within a bank.
        indices: To be written, [B, k], int64.
        active: Set to 1 where a latent is selected, [N], int8.
        flag: Raised if a selected value is infinite.
        bank: Columns of a bank; it divides N, and the number of banks k.
    """
    (B, N), k = z.shape, values.shape[1]
    banks = N // bank
    keep = k // banks
    group = group_size(bank, keep)
    maxima = z.new_zeros(B * banks, maxima_columns(bank, group))
    found = z.new_empty(B * banks, keep)
    within = torch.empty(B * banks, keep, dtype=torch.int64, device=z.device)
    of_bank = torch.empty(bank, dtype=torch.int8, device=z.device)
    select(z.view(-1, bank), maxima, found, within, of_bank, flag, group, scan=True)
    first = torch.arange(0, N, bank, device=z.device)[:, None]
    torch.add(within.view(B, banks, keep), first, out=indices.view(B, banks, keep))
    values.copy_(found.view(B, k))
    active[indices.reshape(-1)] = 1


def select_given(z: Tensor, values: Tensor, indices: Tensor, active: Tensor, flag: Flag) -> None:
    """Fill `values` [B, k] from ReLU(z) at `indices`, and mark the latents in `active`."""
    (B, N), K = z.shape, values.shape[1]
    block_k = triton.next_power_of_2(K)
    rows, warps = programs(block_k, z.device)
    select_given_kernel[(triton.cdiv(B, rows),)](
        z, values, indices, active, flag.told, flag.fault, B, N, K,
        BLOCK_B=rows, BLOCK_K=block_k, num_warps=warps,
    )  # fmt: skip
