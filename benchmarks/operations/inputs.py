"""What is timed: calls without arguments, on random tensors of one size."""

import importlib.metadata
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """Random tensors of one size; the code is the stock Top-k of the dictionary.

    Attributes:
        x: Samples, in the dtype of the product, as all but one.
        W_enc: Encoder.
        b_enc: Encoder bias.
        b_dec: Decoder bias.
        W_dec: Decoder.
        values: Activations of the code.
        indices: Their latents.
        parameter: The decoder in float32, as training has it beside that copy.
    """

    x: Tensor
    W_enc: Tensor
    b_enc: Tensor
    b_dec: Tensor
    W_dec: Tensor
    values: Tensor
    indices: Tensor
    parameter: Tensor

    @property
    def encoder(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Arguments of encode_topk."""
        return self.x, self.W_enc, self.b_enc, self.b_dec

    @property
    def code(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Arguments of sparse_decode, all in the dtype of the product."""
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


def compiled(function: Callable[..., object], device: torch.device) -> Callable[..., object]:
    """Under torch.compile; on the CPU, where nothing is timed, without its code generator."""
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    return torch.compile(function, fullgraph=True, dynamic=False, backend=backend)


def sparsify_version() -> str | None:
    """Of eai-sparsify, or None where it is not installed."""
    try:
        return importlib.metadata.version("eai-sparsify")
    except importlib.metadata.PackageNotFoundError:
        return None
