"""Gradients of both weight matrices from sparse pairs, without atomics and in one pass.

    dW_enc[j] = sum over the pairs p of latent j of d_z[p] x[sample(p)]    db_enc[j] = sum of d_z[p]
    dW_dec[j] = sum over the pairs p of latent j of z[p] g[sample(p)]

A program adds one chunk of the pairs of one latent. A latent of several chunks, such as one that
fires on every sample, leaves partial sums that a second kernel adds in order.

Shapes: pairs [B K], d_z and z [B, K], x and g [B, D], dW_enc and dW_dec [N, D] float32.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightsae_kernels.fused.weights_order import LatentOrder
from lightsae_kernels.types import DecoderPairs

# Chunks of a program; the interpreter pays by the program.
_CHUNKS, _INTERPRETED = 1, 64


@triton.jit
def weight_gradients_kernel(
    pairs_ptr,
    offsets_ptr,
    owner_ptr,
    first_ptr,
    slots_ptr,
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
    CHUNKS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: CHUNKS chunks of pairs, BLOCK_D columns."""
    chunk = tl.program_id(0) * CHUNKS + tl.arange(0, CHUNKS)
    latent = tl.load(owner_ptr + chunk, mask=chunk < C, other=N)
    real = latent < N
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    number = chunk - tl.load(first_ptr + latent, mask=real, other=0)
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
    slot = tl.load(slots_ptr + latent, mask=real, other=0)
    whole = real & (slot == tl.load(slots_ptr + latent + 1, mask=real, other=0))
    partial = real & (slot != tl.load(slots_ptr + latent + 1, mask=real, other=0))
    at_whole = latent.to(tl.int64)[:, None] * D + d[None, :]
    at_part = (slot + number).to(tl.int64)[:, None] * D + d[None, :]
    to_whole = whole[:, None] & (d < D)[None, :]
    to_part = partial[:, None] & (d < D)[None, :]
    if ENC:
        tl.store(part_enc_ptr + at_part, enc, mask=to_part)
        first_columns = tl.zeros((CHUNKS,), tl.int32) + tl.program_id(1) == 0
        tl.store(part_b_ptr + slot + number, bias, mask=partial & first_columns)
        if ACCUMULATE:
            enc += tl.load(dw_enc_ptr + at_whole, mask=to_whole, other=0.0)
            bias += tl.load(db_enc_ptr + latent, mask=whole & first_columns, other=0.0)
        tl.store(dw_enc_ptr + at_whole, enc, mask=to_whole)
        tl.store(db_enc_ptr + latent, bias, mask=whole & first_columns)
    if DEC:
        tl.store(part_dec_ptr + at_part, dec, mask=to_part)
        tl.store(dw_dec_ptr + at_whole, dec, mask=to_whole)


@triton.jit
def partial_sums_kernel(
    slots_ptr, part_ptr, out_ptr, N, D,
    ACCUMULATE: tl.constexpr, LATENTS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One program: the partial sums of LATENTS latents, BLOCK_D columns."""
    latent = tl.program_id(0) * LATENTS + tl.arange(0, LATENTS)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    begin = tl.load(slots_ptr + latent, mask=latent < N, other=0)
    length = tl.load(slots_ptr + latent + 1, mask=latent < N, other=0) - begin
    longest = tl.max(length, axis=0)
    if longest > 0:
        total = tl.zeros((LATENTS, BLOCK_D), tl.float32)
        for step in range(0, longest):
            at = (begin + step).to(tl.int64)[:, None] * D + d[None, :]
            here = (step < length)[:, None] & (d < D)[None, :]
            total += tl.load(part_ptr + at, mask=here, other=0.0)
        out_at = out_ptr + latent.to(tl.int64)[:, None] * D + d[None, :]
        summed = (length > 0)[:, None] & (d < D)[None, :]
        if ACCUMULATE:
            total += tl.load(out_at, mask=summed, other=0.0)
        tl.store(out_at, total, mask=summed)


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
    N, D, K = len(order.offsets) - 1, rows.shape[1], coefficients.shape[1]
    d_W_dec = None
    if decoder is not None:
        d_W_dec = torch.empty(N, D, dtype=torch.float32, device=rows.device)
        z, g = decoder.z.float().contiguous(), decoder.g.contiguous()
    block = min(1024, max(16, triton.next_power_of_2(D)))
    columns = triton.cdiv(D, block)
    part_enc, part_b, part_dec = (
        None if target is None else _partials(order, target) for target in (d_W_enc, d_b, d_W_dec)
    )
    C, together = len(order.owner), chunks_of(rows.device)
    weight_gradients_kernel[(triton.cdiv(C, together), columns)](
        order.pairs, order.offsets, order.owner, order.first, order.slots,
        d_z, x, z, g, d_W_enc, d_b, d_W_dec, part_enc, part_b, part_dec, C, N, K, D,
        ENC=encoder is not None, DEC=decoder is not None, ACCUMULATE=accumulate,
        LENGTH=order.chunk, CHUNKS=together, BLOCK_D=block, num_warps=4,
    )  # fmt: skip
    if order.partials:
        _add_partials(order, part_enc, d_W_enc, accumulate)
        _add_partials(order, part_b, d_b, accumulate)
        _add_partials(order, part_dec, d_W_dec, False)
    return d_W_dec


def decoder_gradient(order: LatentOrder, pairs: DecoderPairs) -> Tensor:
    """Gradient of W_dec, [N, D] float32."""
    d_W_dec = weight_gradients(order, None, pairs)
    assert d_W_dec is not None
    return d_W_dec


def _partials(order: LatentOrder, target: Tensor) -> Tensor:
    width = target.shape[1] if target.dim() == 2 else 1
    return torch.empty(order.partials, width, dtype=torch.float32, device=target.device)


def _add_partials(
    order: LatentOrder, part: Tensor | None, target: Tensor | None, accumulate: bool
) -> None:
    if part is not None and target is not None:
        width = part.shape[1]
        block = min(1024, max(16, triton.next_power_of_2(width)))
        together = chunks_of(part.device)
        partial_sums_kernel[(triton.cdiv(len(target), together), triton.cdiv(width, block))](
            order.slots, part, target, len(target), width,
            ACCUMULATE=accumulate, LATENTS=together, BLOCK_D=block,
        )  # fmt: skip


def chunks_of(device: torch.device) -> int:
    """Chunks, or latents, that a program has side by side."""
    return _INTERPRETED if device.type == "cpu" else _CHUNKS
