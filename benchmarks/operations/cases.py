"""Every implementation of every operation, on random tensors."""

from collections.abc import Iterator

import torch
from operations import decode, encode
from operations.inputs import Case, Inputs
from operations.names import BARE, COPY
from operations.sizes import Size
from torch import Tensor
from torch.nn import functional as F

COPIED_BYTES = {"cuda": 512 << 20, "cpu": 1 << 10}


def draw(size: Size, dtype: torch.dtype, device: torch.device) -> Inputs:
    """Normal samples, decoder rows of norm 1, encoder equal to the decoder."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    parameter = F.normalize(normal(size.d_sae, size.d_in), dim=1)
    W = parameter.to(dtype)
    x, b_enc, b_dec = normal(size.B, size.d_in), normal(size.d_sae) / 10, normal(size.d_in) / 10
    encoder = (x.to(dtype), W, b_enc.to(dtype), b_dec.to(dtype))
    values, indices = encode.topk_in_blocks(*encoder, size.k)
    return Inputs(*encoder, W.clone(), values, indices, parameter)


def cases(inputs: Inputs, size: Size, *, whole: bool) -> Iterator[Case]:
    """Every case, what the goals need first; a part of them leaves out what is slow to prepare."""
    yield from ceilings(inputs, size)
    yield from encode.own_cases(inputs, size)
    yield from decode.own_cases(inputs, size)
    yield from encode.stock_cases(inputs, size, whole=whole)
    yield from decode.stock_cases(inputs, size)
    yield from encode.sparsify_cases(inputs, size)
    yield from decode.sparsify_cases(inputs, size)
    if whole:
        yield from encode.reference_cases(inputs, size)
        yield from decode.reference_cases(inputs, size)


def ceilings(inputs: Inputs, size: Size) -> Iterator[Case]:
    """What nothing can beat: a bare product and a device copy."""
    x, W_enc = inputs.x, inputs.W_enc
    source = torch.zeros(COPIED_BYTES[x.device.type], dtype=torch.uint8, device=x.device)
    target = torch.empty_like(source)
    yield Case(*COPY, lambda: target.copy_(source), 0, 2 * source.nbytes)
    yield Case(*BARE, lambda: x @ W_enc.t(), size.product_flops, 0)
