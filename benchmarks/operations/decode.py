"""Decoding, and the residual, in every implementation."""

from collections.abc import Iterator

import torch
from lightsae_kernels import nested_residual, reference, sparse_decode, sparse_residual
from operations.inputs import Case, Inputs, compiled, sparsify_version
from operations.names import DECODE, NESTED, OURS, RESIDUAL
from operations.sizes import Size
from torch import Tensor
from torch.nn import functional as F

PREFIXES = 4


def own_cases(inputs: Inputs, size: Size) -> Iterator[Case]:
    """The fused kernels as training calls them: a float32 decoder and its narrow copy."""
    least = size.decode_flops, size.decode_bytes(inputs.x.itemsize)
    yield Case(DECODE, OURS, lambda: ours(inputs), *least)
    x, least = inputs.x.float(), (size.decode_flops, size.residual_bytes(inputs.x.itemsize))
    yield Case(RESIDUAL, OURS, lambda: ours(inputs, x), *least)
    yield Case(NESTED, OURS, lambda: nested(inputs, x), *least)


def ours(inputs: Inputs, x: Tensor | None = None) -> Tensor:
    """Reconstructions, or what they leave of x, in float32."""
    dtype, device = inputs.x.dtype, inputs.x.device.type
    decoder = inputs.parameter, inputs.b_dec.float()
    code = inputs.values, inputs.indices
    with torch.autocast(device, dtype, enabled=dtype.itemsize == 2):
        if x is None:
            return sparse_decode(*code, *decoder, W_dec_narrow=inputs.W_dec, backend="triton")
        return sparse_residual(
            x, *code, *decoder, W_dec_narrow=inputs.W_dec, backend="triton"
        ).residual


def prefixes_of(inputs: Inputs) -> Tensor:
    """The first of the prefixes d_sae / 8, / 4, / 2 and / 1 that a latent is in, [B, k]."""
    d_sae, device = len(inputs.parameter), inputs.x.device
    bounds = torch.tensor([d_sae // part for part in (8, 4, 2)], device=device)
    return torch.bucketize(inputs.indices, bounds, right=True)


def nested(inputs: Inputs, x: Tensor) -> Tensor:
    """What the four prefixes of a Matryoshka dictionary leave of x: a decode for each."""
    dtype, levels = inputs.x.dtype, prefixes_of(inputs)
    with torch.autocast(inputs.x.device.type, dtype, enabled=dtype.itemsize == 2):
        return nested_residual(
            x, inputs.values, inputs.indices, levels, PREFIXES, inputs.parameter,
            inputs.b_dec.float(),
            W_dec_narrow=inputs.W_dec, backend="triton",
        ).residual  # fmt: skip


def stock_cases(inputs: Inputs, size: Size) -> Iterator[Case]:
    """Torch's own operation."""
    least = size.decode_flops, size.decode_bytes(inputs.x.itemsize)
    bag = "embedding_bag (stand-in for sparsify)"
    yield Case(DECODE, bag, lambda: embedding_bag(*inputs.code), *least)


def sparsify_cases(inputs: Inputs, size: Size) -> Iterator[Case]:
    """The decoder of eai-sparsify where it is installed: a Triton kernel."""
    version = sparsify_version()
    if version is None:
        return

    # Imported in the call, so that a broken installation is one failed case among others.
    def decode() -> Tensor:
        from sparsify.utils import triton_decode

        return triton_decode(inputs.indices, inputs.values, inputs.W_dec.mT) + inputs.b_dec

    least = size.decode_flops, size.decode_bytes(inputs.x.itemsize)
    yield Case(DECODE, "sparsify", decode, *least, version)


def reference_cases(inputs: Inputs, size: Size) -> Iterator[Case]:
    """The definition, eager and compiled."""
    device, itemsize = inputs.x.device, inputs.x.itemsize
    for suffix, change in (("", lambda f, _: f), (", compiled", compiled)):
        name = f"reference{suffix}"
        decode = change(reference.sparse_decode, device)
        yield Case(DECODE, name, lambda f=decode: f(*inputs.code),
                   size.decode_flops, size.decode_bytes(itemsize))  # fmt: skip
        residual = change(reference.sparse_residual, device)
        yield Case(RESIDUAL, name, lambda f=residual: f(inputs.x, *inputs.code),
                   size.decode_flops, size.residual_bytes(itemsize))  # fmt: skip
        parts = change(reference.nested_residual, device)
        values, indices, *decoder = inputs.code
        code = values, indices, prefixes_of(inputs), PREFIXES
        yield Case(NESTED, name, lambda f=parts, c=code, d=decoder: f(inputs.x, *c, *d),
                   size.decode_flops, size.residual_bytes(itemsize))  # fmt: skip


def embedding_bag(values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor) -> Tensor:
    """Sparse decode by torch's own gather and sum."""
    return F.embedding_bag(indices, W_dec, per_sample_weights=values, mode="sum") + b_dec
