"""Gradients of both weight matrices from sparse pairs, without atomics and in one pass.

    dW_enc[j] = sum over the pairs p of latent j of d_z[p] x[sample(p)]    db_enc[j] = sum of d_z[p]
    dW_dec[j] = sum over the pairs p of latent j of z[p] g[sample(p)]

A program adds one chunk of the pairs of one latent. The first chunk of every latent is written to
the gradient; further ones, of a latent that fires often, leave partial sums that a second kernel
adds to it in order. Programs of one block of columns run one after the other, so that this block of
x and g stays in L2.

Shapes: pairs [B K], d_z and z [B, K], x and g [B, D], dW_enc and dW_dec [N, D] float32.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightsae_kernels.fused.latent_sort import LatentOrder
from lightsae_kernels.types import DecoderPairs

# Chunks of a program; the interpreter pays by the program.
_CHUNKS, _INTERPRETED = 1, 64
# Bytes of a block of columns of x and g that stay in L2, on every architecture.
_STAYING = 16 << 20


@triton.jit
def owner_of(further, extras_ptr, N, STEPS: tl.constexpr):
    """Latents of further chunks: extras[latent] <= further < extras[latent + 1]; N behind all.

    What is negative is no further chunk, and waits for no load.
    """
    low = tl.zeros(further.shape, tl.int32)
    for step in tl.static_range(STEPS):
        middle = low + (1 << (STEPS - 1 - step))
        inside = (middle <= N) & (further >= 0)
        begins = tl.load(extras_ptr + middle, mask=inside, other=0)
        low = tl.where(inside & (begins <= further), middle, low)
    return low


@triton.jit
def weight_gradients_kernel(
    pairs_ptr,
    offsets_ptr,
    extras_ptr,
    dz_ptr,
    x_ptr,
    z_ptr,
    g_ptr,
    dw_enc_ptr,
    db_enc_ptr,
    dw_dec_ptr,
    part_enc_ptr,
    part_b_ptr,
    part_dec_ptr,
    C,
    N,
    K,
    D,
    ENC: tl.constexpr,
    DEC: tl.constexpr,
    ACCUMULATE: tl.constexpr,
    LENGTH: tl.constexpr,
    STEPS: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: CHUNKS chunks, BLOCK_D columns; chunk j < N is the first of latent j."""
    chunk = tl.program_id(0) * CHUNKS + tl.arange(0, CHUNKS)
    further = chunk - N
    owner = owner_of(further, extras_ptr, N, STEPS)
    latent = tl.where(further < 0, chunk, owner)
    real = (chunk < C) & (latent < N)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    first_further = tl.load(extras_ptr + latent, mask=real, other=0)
    number = tl.where(further < 0, 0, further - first_further + 1)
    begin = tl.load(offsets_ptr + latent, mask=real, other=0) + number * LENGTH
    end = tl.load(offsets_ptr + latent + 1, mask=real, other=0)
    length = tl.where(real, tl.minimum(end - begin, LENGTH), 0)
    enc = tl.zeros((CHUNKS, BLOCK_D), tl.float32)
    dec = tl.zeros((CHUNKS, BLOCK_D), tl.float32)
    bias = tl.zeros((CHUNKS,), tl.float32)
    # Unrolled, so that the rows of several pairs are on their way at a time.
    for step in tl.range(0, tl.max(length, axis=0), loop_unroll_factor=4):
        here = step < length
        pair = tl.load(pairs_ptr + begin + step, mask=here, other=0)
        at = (pair // K).to(tl.int64)[:, None] * D + d[None, :]
        inside = here[:, None] & (d < D)[None, :]
        if ENC:
            dz = tl.load(dz_ptr + pair, mask=here, other=0.0).to(tl.float32)
            enc += dz[:, None] * tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
            bias += dz
        if DEC:
            z = tl.load(z_ptr + pair, mask=here, other=0.0).to(tl.float32)
            dec += z[:, None] * tl.load(g_ptr + at, mask=inside, other=0.0).to(tl.float32)
    whole = real & (further < 0)
    partial = real & (further >= 0)
    at_whole = latent.to(tl.int64)[:, None] * D + d[None, :]
    at_part = further.to(tl.int64)[:, None] * D + d[None, :]
    to_whole = whole[:, None] & (d < D)[None, :]
    to_part = partial[:, None] & (d < D)[None, :]
    if ENC:
        tl.store(part_enc_ptr + at_part, enc, mask=to_part)
        first_columns = tl.zeros((CHUNKS,), tl.int32) + tl.program_id(1) == 0
        tl.store(part_b_ptr + further, bias, mask=partial & first_columns)
        if ACCUMULATE:
            enc += tl.load(dw_enc_ptr + at_whole, mask=to_whole, other=0.0)
            bias += tl.load(db_enc_ptr + latent, mask=whole & first_columns, other=0.0)
        tl.store(dw_enc_ptr + at_whole, enc, mask=to_whole)
        tl.store(db_enc_ptr + latent, bias, mask=whole & first_columns)
    if DEC:
        tl.store(part_dec_ptr + at_part, dec, mask=to_part)
        tl.store(dw_dec_ptr + at_whole, dec, mask=to_whole)


@triton.jit
def add_row(part_ptr, out_ptr, latent, first, length, longest, d, D, here):
    """Add partial sums [first, first + length) to a row of the gradient, in order."""
    out_at = out_ptr + latent.to(tl.int64)[:, None] * D + d[None, :]
    total = tl.load(out_at, mask=here, other=0.0)
    for step in range(0, longest):
        at = (first + step).to(tl.int64)[:, None] * D + d[None, :]
        total += tl.load(part_ptr + at, mask=here & (step < length)[:, None], other=0.0)
    tl.store(out_at, total, mask=here)


@triton.jit
def partial_sums_kernel(
    extras_ptr, part_enc_ptr, part_b_ptr, part_dec_ptr, dw_enc_ptr, db_enc_ptr, dw_dec_ptr,
    F, N, D,
    ENC: tl.constexpr, DEC: tl.constexpr, STEPS: tl.constexpr, CHUNKS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One program: CHUNKS further chunks, BLOCK_D columns; the first of a latent adds them all."""
    further = tl.program_id(0) * CHUNKS + tl.arange(0, CHUNKS)
    latent = owner_of(further, extras_ptr, N, STEPS)
    real = (further < F) & (latent < N)
    first = tl.load(extras_ptr + latent, mask=real, other=0)
    length = tl.load(extras_ptr + latent + 1, mask=real, other=0) - first
    leads = real & (first == further)
    length = tl.where(leads, length, 0)
    longest = tl.max(length, axis=0)
    if longest > 0:
        d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
        here = leads[:, None] & (d < D)[None, :]
        if ENC:
            add_row(part_enc_ptr, dw_enc_ptr, latent, first, length, longest, d, D, here)
            one = tl.arange(0, 1)
            alone = leads[:, None] & (one[None, :] == 0) & (tl.program_id(1) == 0)
            add_row(part_b_ptr, db_enc_ptr, latent, first, length, longest, one, 1, alone)
        if DEC:
            add_row(part_dec_ptr, dw_dec_ptr, latent, first, length, longest, d, D, here)


class EncoderPairs(NamedTuple):
    """What the encoder's gradient is made of, and where it goes.

    Attributes:
        d_z: Gradient of the pre-activations at the support, [B, K].
        x: Centred inputs, [B, D].
        d_W: To be written, or added to, [N, D] float32.
        d_b: To be written, or added to, [N] float32.
        accumulate: Add to what `d_W` and `d_b` hold.
    """

    d_z: Tensor
    x: Tensor
    d_W: Tensor
    d_b: Tensor
    accumulate: bool = False


def weight_gradients(
    order: LatentOrder, encoder: EncoderPairs | None, decoder: DecoderPairs | None
) -> Tensor | None:
    """Fill the encoder's gradient and make the decoder's, of both in one pass; [N, D] float32."""
    d_z, x, d_W_enc, d_b, accumulate = encoder or (None, None, None, None, False)
    z, g = decoder or (None, None)
    coefficients, rows = (d_z, x) if encoder is not None else (z, g)
    assert coefficients is not None and rows is not None, "neither gradient is asked for"
    (B, D), K = rows.shape, coefficients.shape[1]
    N, further, device = len(order.offsets) - 1, order.further, rows.device
    d_W_dec = None
    if decoder is not None:
        d_W_dec = torch.empty(N, D, dtype=torch.float32, device=device)
        z, g = decoder.z.float().contiguous(), decoder.g.contiguous()
    part_enc, part_b, part_dec = (
        None if target is None else target.new_empty(further, *target.shape[1:])
        for target in (d_W_enc, d_b, d_W_dec)
    )
    bytes_of_column = B * sum(t.element_size() for t in (x, g) if t is not None)
    block = gradient_columns(D, bytes_of_column)
    warps = gradient_warps(block, encoder, decoder)
    tiles = {
        "ENC": encoder is not None, "DEC": decoder is not None, "STEPS": N.bit_length(),
        "CHUNKS": chunks_of(device), "BLOCK_D": block,
    }  # fmt: skip
    weight_gradients_kernel[(triton.cdiv(N + further, chunks_of(device)), triton.cdiv(D, block))](
        order.pairs, order.offsets, order.extras, d_z, x, z, g, d_W_enc, d_b, d_W_dec,
        part_enc, part_b, part_dec, N + further, N, K, D,
        ACCUMULATE=accumulate, LENGTH=order.chunk, num_warps=warps, **tiles,
    )  # fmt: skip
    if further:
        partial_sums_kernel[(triton.cdiv(further, chunks_of(device)), triton.cdiv(D, block))](
            order.extras, part_enc, part_b, part_dec, d_W_enc, d_b, d_W_dec, further, N, D,
            num_warps=max(1, block // 128), **tiles,
        )  # fmt: skip
    return d_W_dec


def decoder_gradient(order: LatentOrder, pairs: DecoderPairs) -> Tensor:
    """Gradient of W_dec, [N, D] float32."""
    d_W_dec = weight_gradients(order, None, pairs)
    assert d_W_dec is not None
    return d_W_dec


def gradient_columns(D: int, bytes_of_column: int) -> int:
    """Columns of a program: as many as stay in L2 for all samples, 256 to 1024.

    Example:
        >>> gradient_columns(1024, 4096 * 4), gradient_columns(1024, 16384 * 4)
        (1024, 256)
    """
    staying = _STAYING // max(bytes_of_column, 1)
    most = 1024 if staying >= 1024 else 512 if staying >= 512 else 256
    return min(most, max(16, int(triton.next_power_of_2(D))))


def gradient_warps(block: int, *sums: object) -> int:
    """Warps of a program: one for 256 columns of each sum that it makes; more columns spill.

    Example:
        >>> gradient_warps(1024, "encoder", None), gradient_warps(1024, "encoder", "decoder")
        (4, 8)
    """
    return max(1, block // 256) * sum(each is not None for each in sums)


def chunks_of(device: torch.device) -> int:
    """Chunks that a program has side by side."""
    return _INTERPRETED if device.type == "cpu" else _CHUNKS
