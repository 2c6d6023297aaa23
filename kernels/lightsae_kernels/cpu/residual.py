"""Encode and decode; the two share their order of the pairs, and need nothing else in common."""

from typing import Unpack

from torch import Tensor

from lightsae_kernels.cpu.decode import sparse_residual
from lightsae_kernels.cpu.encode import encode_topk
from lightsae_kernels.types import Encoded, EncodeOptions, Residual


def encode_residual(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    k: int,
    **options: Unpack[EncodeOptions],
) -> tuple[Encoded, Residual]:
    """See `lightsae_kernels.encode_residual`."""
    encoded = encode_topk(x, W_enc, b_enc, b_dec, k, **options)
    return encoded, sparse_residual(x, encoded.values, encoded.indices, W_dec, b_dec)
