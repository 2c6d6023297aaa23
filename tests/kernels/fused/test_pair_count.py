"""Pairs (sample, latent) are numbered in int32 by the kernels: more of them are refused."""

import pytest
import torch
from lightsae_kernels import (
    ArgumentError,
    encode_residual,
    encode_topk,
    sparse_decode,
    sparse_residual,
)
from lightsae_kernels.operators import latent_order

ROWS, K = 1 << 28, 8
REFUSED = rf"B = {ROWS} rows with k = {K} has {ROWS * K} pairs .* at most {2**31 - 1}: take small"


def many(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor whose rows are all one."""
    return torch.zeros(1, *shape, dtype=dtype).expand(ROWS, *shape)


def test_an_encoding_of_too_many_pairs_is_refused() -> None:
    W, b, b_dec = torch.ones(16, 1), torch.zeros(16), torch.zeros(1)
    with pytest.raises(ArgumentError, match=REFUSED):
        encode_topk(many(1), W, b, b_dec, K, backend="triton")
    with pytest.raises(ArgumentError, match=REFUSED):
        encode_residual(many(1), W, b, W, b_dec, K, backend="triton")


def test_a_decode_of_too_many_pairs_is_refused() -> None:
    values, indices, W = many(K), many(K, dtype=torch.int64), torch.ones(16, 1)
    with pytest.raises(ArgumentError, match=REFUSED):
        sparse_decode(values, indices, W, backend="triton")
    with pytest.raises(ArgumentError, match=REFUSED):
        sparse_residual(many(1), values, indices, W, backend="triton")
    with pytest.raises(ArgumentError, match=REFUSED):
        latent_order(indices, 16, True)
