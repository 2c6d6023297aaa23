"""What is timed: every operation in every implementation, as calls without arguments."""

import importlib.metadata
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from lightsae_kernels import Encoded, encode_topk, reference, sparse_decode, sparse_residual
from operations.names import BARE, COPY, DECODE, OURS, RECOMPUTE, RESIDUAL, STOCK_COMPILED
from operations.sizes import Size
from torch import Tensor
from torch.nn import functional as F

REGULARIZERS = {
    "encode": None,
    "encode+off_support_l1": "off_support_l1",
    "encode+l1_l2_ratio": "l1_l2_ratio",
}
BLOCK_BYTES = 32 << 20  # of activations: they stay in the L2 of an H200 beside their operands
COPIED_BYTES = {"cuda": 512 << 20, "cpu": 1 << 10}


class Inputs(NamedTuple):
    """Random tensors of one size; the code is the stock Top-k of the dictionary."""

    x: Tensor
    W_enc: Tensor
    b_enc: Tensor
    b_dec: Tensor
    W_dec: Tensor
    values: Tensor
    indices: Tensor

    @property
    def encoder(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Arguments of encode_topk."""
        return self.x, self.W_enc, self.b_enc, self.b_dec

    @property
    def code(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Arguments of sparse_decode."""
        return self.values, self.indices, self.W_dec, self.b_dec


class Case(NamedTuple):
    """One implementation of one operation.

    Attributes:
        operation: What is computed.
        implementation: By whom.
        call: Computes it.
        flops: Floating-point operations that it cannot do without.
        traffic: Bytes of device memory that it cannot do without.
        version: Of a package other than this one and torch.
    """

    operation: str
    implementation: str
    call: Callable[[], object]
    flops: int
    traffic: int
    version: str = ""

    @property
    def name(self) -> tuple[str, str]:
        """What a figure is looked up by."""
        return self.operation, self.implementation


def draw(size: Size, dtype: torch.dtype, device: torch.device) -> Inputs:
    """Normal samples, decoder rows of norm 1, encoder equal to the decoder."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    W = F.normalize(normal(size.d_sae, size.d_in), dim=1).to(dtype)
    x, b_enc, b_dec = normal(size.B, size.d_in), normal(size.d_sae) / 10, normal(size.d_in) / 10
    encoder = (x.to(dtype), W, b_enc.to(dtype), b_dec.to(dtype))
    values, indices = topk_in_blocks(*encoder, size.k)
    return Inputs(*encoder, W.clone(), values, indices)


def cases(inputs: Inputs, size: Size, *, whole: bool) -> Iterator[Case]:
    """Every case, what the goals need first; a part of them leaves out what is slow to prepare."""
    yield from _ceilings(inputs, size)
    yield from _ours(inputs, size)
    yield from _stock(inputs, size, whole=whole)
    yield from _sparsify(inputs, size)
    if whole:
        yield from _reference(inputs, size)


def _ceilings(inputs: Inputs, size: Size) -> Iterator[Case]:
    x, W_enc = inputs.x, inputs.W_enc
    source = torch.zeros(COPIED_BYTES[x.device.type], dtype=torch.uint8, device=x.device)
    target = torch.empty_like(source)
    yield Case(*COPY, lambda: target.copy_(source), 0, 2 * source.nbytes)
    yield Case(*BARE, lambda: x @ W_enc.t(), size.product_flops, 0)


def _ours(inputs: Inputs, size: Size) -> Iterator[Case]:
    # Triton reads where it runs when it is imported, which the caller has decided by now.
    from lightsae_kernels.memory import bounded

    least = size.product_flops, size.encode_bytes(inputs.x.itemsize)
    for operation, regularizer in REGULARIZERS.items():
        yield Case(operation, OURS, lambda r=regularizer: ours(inputs, size, r), *least)

    def recomputed() -> object:
        with bounded(recompute=True):
            return ours(inputs, size, "l1_l2_ratio")

    yield Case(RECOMPUTE, OURS, recomputed, *least)
    least = size.decode_flops, size.decode_bytes(inputs.x.itemsize)
    yield Case(DECODE, OURS, lambda: sparse_decode(*inputs.code, backend="triton"), *least)
    least = size.decode_flops, size.residual_bytes(inputs.x.itemsize)
    call = lambda: sparse_residual(inputs.x, *inputs.code, backend="triton")  # noqa: E731
    yield Case(RESIDUAL, OURS, call, *least)


def ours(inputs: Inputs, size: Size, regularizer: str | None) -> Encoded:
    """The fused encode_topk; with a regularizer as in training, which keeps the activations."""
    x, W_enc, *biases = inputs.encoder
    with torch.set_grad_enabled(regularizer is not None):
        weight = W_enc.detach().requires_grad_(regularizer is not None)
        code = encode_topk(x, weight, *biases, size.k, regularizer=regularizer, backend="triton")
    return Encoded(*(t.detach() for t in code))


def _stock(inputs: Inputs, size: Size, *, whole: bool) -> Iterator[Case]:
    least = size.product_flops, size.encode_bytes(inputs.x.itemsize)
    if whole:
        call = _compiled(product_relu_topk, inputs.x.device)
        yield Case("encode", STOCK_COMPILED, lambda: call(*inputs.encoder, size.k), *least)
    for name, function in (
        ("product + relu + topk (stand-in for sparsify)", product_relu_topk),
        ("L2 blocks: product + relu + topk", topk_in_blocks),
        ("L2 blocks: product, nothing selected", product_in_blocks),
    ):
        yield Case("encode", name, lambda f=function: f(*inputs.encoder, size.k), *least)
    least = size.decode_flops, size.decode_bytes(inputs.x.itemsize)
    bag = "embedding_bag (stand-in for sparsify)"
    yield Case(DECODE, bag, lambda: embedding_bag(*inputs.code), *least)


def _reference(inputs: Inputs, size: Size) -> Iterator[Case]:
    device, itemsize = inputs.x.device, inputs.x.itemsize
    for suffix, change in (("", lambda f, _: f), (", compiled", _compiled)):
        encode, decode = (
            change(f, device) for f in (reference.encode_topk, reference.sparse_decode)
        )
        name = f"reference{suffix}"
        yield Case(DECODE, name, lambda f=decode: f(*inputs.code),
                   size.decode_flops, size.decode_bytes(itemsize))  # fmt: skip
        residual = change(reference.sparse_residual, device)
        yield Case(RESIDUAL, name, lambda f=residual: f(inputs.x, *inputs.code),
                   size.decode_flops, size.residual_bytes(itemsize))  # fmt: skip
        for operation, regularizer in REGULARIZERS.items():
            yield Case(
                operation, name,
                lambda f=encode, r=regularizer: f(*inputs.encoder, size.k, regularizer=r),
                size.product_flops, size.encode_bytes(itemsize),
            )  # fmt: skip


def _sparsify(inputs: Inputs, size: Size) -> Iterator[Case]:
    """The operations of eai-sparsify where it is installed; its decoder is a Triton kernel."""
    try:
        version = importlib.metadata.version("eai-sparsify")
    except importlib.metadata.PackageNotFoundError:
        return
    x, W_enc, b_enc, b_dec = inputs.encoder

    # Imported in the calls, so that a broken installation is one failed case among others.
    def encode() -> object:
        from sparsify.fused_encoder import fused_encoder

        return fused_encoder(x - b_dec, W_enc, b_enc, size.k, "topk")

    def decode() -> Tensor:
        from sparsify.utils import triton_decode

        return triton_decode(inputs.indices, inputs.values, inputs.W_dec.mT) + b_dec

    itemsize = x.itemsize
    yield Case("encode", "sparsify", encode,
               size.product_flops, size.encode_bytes(itemsize), version)  # fmt: skip
    yield Case(DECODE, "sparsify", decode,
               size.decode_flops, size.decode_bytes(itemsize), version)  # fmt: skip


def product_relu_topk(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Values and indices; torch.topk takes any of equal values."""
    values, indices = F.linear(x - b_dec, W_enc, b_enc).relu().topk(k)
    return values, indices


def topk_in_blocks(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The same, from activations that never leave L2."""
    values = x.new_empty(len(x), k)
    indices = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    for rows, a in _product_blocks(x - b_dec, W_enc, b_enc):
        torch.topk(a.relu_(), k, out=(values[rows], indices[rows]))
    return values, indices


def product_in_blocks(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int) -> None:
    """The product alone, in such blocks: what a selection from L2 starts from."""
    for _ in _product_blocks(x - b_dec, W_enc, b_enc):
        pass


def embedding_bag(values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor) -> Tensor:
    """Sparse decode by torch's own gather and sum."""
    return F.embedding_bag(indices, W_dec, per_sample_weights=values, mode="sum") + b_dec


def _product_blocks(x: Tensor, W_enc: Tensor, b_enc: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Pre-activations of one row block after the other, all in one buffer."""
    height = min(len(x), max(1, BLOCK_BYTES // (len(W_enc) * x.itemsize)))
    buffer = x.new_empty(height, len(W_enc))
    for start in range(0, len(x), height):
        rows = slice(start, min(start + height, len(x)))
        out = buffer[: rows.stop - rows.start]
        yield rows, torch.addmm(b_enc, x[rows], W_enc.t(), out=out)


def _compiled(function: Callable[..., object], device: torch.device) -> Callable[..., object]:
    """Under torch.compile; on the CPU, where nothing is timed, without its code generator."""
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    return torch.compile(function, fullgraph=True, dynamic=False, backend=backend)
