"""Encoding in every implementation."""

from collections.abc import Iterator

import torch
from lightsae_kernels import Encoded, encode_topk, reference
from operations.inputs import Case, Inputs, compiled, sparsify_version
from operations.names import OURS, RECOMPUTE, STOCK_COMPILED
from operations.sizes import Size
from torch import Tensor
from torch.nn import functional as F

REGULARIZERS = {
    "encode": None,
    "encode+off_support_l1": "off_support_l1",
    "encode+l1_l2_ratio": "l1_l2_ratio",
}
BLOCK_BYTES = 32 << 20  # of activations: they stay in the L2 of an H200 beside their operands


def own_cases(inputs: Inputs, size: Size) -> Iterator[Case]:
    """The fused kernels, with and without a regularizer."""
    # Triton reads where it runs when it is imported, which the caller has decided by now.
    from lightsae_kernels.memory import bounded

    least = size.product_flops, size.encode_bytes(inputs.x.itemsize)
    for operation, regularizer in REGULARIZERS.items():
        yield Case(operation, OURS, lambda r=regularizer: ours(inputs, size, r), *least)

    def recomputed() -> object:
        with bounded(recompute=True):
            return ours(inputs, size, "l1_l2_ratio")

    yield Case(RECOMPUTE, OURS, recomputed, *least)
    yield from _other_ways(inputs, size)


def _other_ways(inputs: Inputs, size: Size) -> Iterator[Case]:
    """What the table of tiles offers besides what it takes."""
    from lightsae_kernels.fused import tile_configs

    asked = inputs.x.device, inputs.x.dtype, size.d_in, size.d_sae
    for option in tile_configs.product_options(*asked)[1:]:

        def call(option: object = option) -> object:
            offered, tile_configs.product_options = (
                tile_configs.product_options,
                lambda *_: (option,),
            )
            try:
                return ours(inputs, size, None)
            finally:
                tile_configs.product_options = offered

        name = "the library's product" if option is None else "tiles {}x{}x{}".format(*option)
        least = size.product_flops, size.encode_bytes(inputs.x.itemsize)
        yield Case("encode", f"{OURS}, {name}", call, *least)


def ours(inputs: Inputs, size: Size, regularizer: str | None) -> Encoded:
    """The fused encode_topk; with a regularizer as in training, which keeps the activations."""
    x, W_enc, *biases = inputs.encoder
    with torch.set_grad_enabled(regularizer is not None):
        weight = W_enc.detach().requires_grad_(regularizer is not None)
        code = encode_topk(x, weight, *biases, size.k, regularizer=regularizer, backend="triton")
    return Encoded(*(t.detach() for t in code[:4]))


def stock_cases(inputs: Inputs, size: Size, *, whole: bool) -> Iterator[Case]:
    """Torch's own operations; the compiled ones are slow to prepare."""
    least = size.product_flops, size.encode_bytes(inputs.x.itemsize)
    if whole:
        call = compiled(product_relu_topk, inputs.x.device)
        yield Case("encode", STOCK_COMPILED, lambda: call(*inputs.encoder, size.k), *least)
    for name, function in (
        ("product + relu + topk (stand-in for sparsify)", product_relu_topk),
        ("L2 blocks: product + relu + topk", topk_in_blocks),
        ("L2 blocks: product, nothing selected", product_in_blocks),
    ):
        yield Case("encode", name, lambda f=function: f(*inputs.encoder, size.k), *least)


def sparsify_cases(inputs: Inputs, size: Size) -> Iterator[Case]:
    """The encoder of eai-sparsify where it is installed."""
    version = sparsify_version()
    if version is None:
        return
    x, W_enc, b_enc, b_dec = inputs.encoder

    # Imported in the call, so that a broken installation is one failed case among others.
    def encode() -> object:
        from sparsify.fused_encoder import fused_encoder

        return fused_encoder(x - b_dec, W_enc, b_enc, size.k, "topk")

    least = size.product_flops, size.encode_bytes(x.itemsize)
    yield Case("encode", "sparsify", encode, *least, version)


def reference_cases(inputs: Inputs, size: Size) -> Iterator[Case]:
    """The definition, eager and compiled."""
    least = size.product_flops, size.encode_bytes(inputs.x.itemsize)
    device = inputs.x.device
    for suffix, change in (("", lambda f, _: f), (", compiled", compiled)):
        encode = change(reference.encode_topk, device)
        for operation, regularizer in REGULARIZERS.items():
            yield Case(
                operation, f"reference{suffix}",
                lambda f=encode, r=regularizer: f(*inputs.encoder, size.k, regularizer=r), *least,
            )  # fmt: skip


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


def _product_blocks(x: Tensor, W_enc: Tensor, b_enc: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Pre-activations of one row block after the other, all in one buffer."""
    height = min(len(x), max(1, BLOCK_BYTES // (len(W_enc) * x.itemsize)))
    buffer = x.new_empty(height, len(W_enc))
    for start in range(0, len(x), height):
        rows = slice(start, min(start + height, len(x)))
        out = buffer[: rows.stop - rows.start]
        yield rows, torch.addmm(b_enc, x[rows], W_enc.t(), out=out)
