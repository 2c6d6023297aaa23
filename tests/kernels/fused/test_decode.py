"""The fused sparse_decode against the definition."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightsae_kernels import ArgumentError, reference, sparse_decode, sparse_residual
from lightsae_kernels.fault_flags import unwatched
from lightsae_kernels.types import Decoder

from .conftest import DTYPES

decode = pytest.importorskip("lightsae_kernels.fused.decode")

Close = Callable[..., None]
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def draw(B: int, d_in: int, d_sae: int, k: int, dtype: torch.dtype, device: Any) -> list[Any]:
    generator = torch.Generator().manual_seed(5)
    shapes = [(B, k), (d_sae, d_in), (d_in,), (B, d_in)]
    tensors = [torch.randn(*s, generator=generator).to(dtype).to(device) for s in shapes]
    indices = torch.randint(0, d_sae, (B, k), generator=generator).to(device)
    return [*tensors, indices]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("B", "d_in", "d_sae", "k"), [(41, 12, 201, 7), (1, 1, 1, 1), (3, 2100, 9, 9)]
)
def test_equals_the_definition(
    B: int, d_in: int, d_sae: int, k: int, dtype: torch.dtype, device: torch.device,
    assert_close: Close,
) -> None:  # fmt: skip
    values, W_dec, b_dec, upstream, indices = draw(B, d_in, d_sae, k, dtype, device)

    def outputs(backend: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        leaves = [t.to(dtype).clone().requires_grad_() for t in (values, W_dec, b_dec)]
        x_hat = sparse_decode(leaves[0], indices, leaves[1], leaves[2], backend=backend)
        return (x_hat, *torch.autograd.grad((x_hat * upstream.to(dtype)).sum(), leaves))

    names = ("x_hat", "d_values", "d_W_dec", "d_b_dec")
    pairs = zip(names, outputs("triton", dtype), outputs("reference", torch.float64), strict=True)
    for name, actual, expected in pairs:
        assert_close(name, actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("latent", [-1, 50])
def test_an_index_outside_the_dictionary_reads_nothing_and_raises_the_flag(
    latent: int, device: torch.device
) -> None:
    values, W_dec, b_dec, x, indices = draw(4, 6, 50, 3, torch.float32, device)
    indices[1, 2] = latent
    x_hat, flag = torch.empty_like(x), unwatched(device)
    decode.decode(values, indices, Decoder(W_dec, b_dec, W_dec.dtype), x_hat, flag)
    assert int(flag.fault) == 1
    indices[1, 2], values[1, 2] = 0, 0
    expected = reference.sparse_decode(values, indices, W_dec, b_dec)
    torch.testing.assert_close(x_hat, expected)


def test_a_strided_bias(device: torch.device) -> None:
    values, W_dec, _, _, indices = draw(4, 6, 50, 3, torch.float32, device)
    b_dec = torch.arange(12.0, device=device)[::2]
    x_hat = sparse_decode(values, indices, W_dec, b_dec, backend="triton")
    torch.testing.assert_close(x_hat, reference.sparse_decode(values, indices, W_dec, b_dec))


# The interpreter is numpy, which warns where a GPU computes NaN and stores inf.
@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 6e4])
def test_the_kernel_sees_nan_inf_and_overflow(value: float, device: torch.device) -> None:
    values, W_dec, b_dec, x, indices = draw(4, 6, 50, 3, torch.float16, device)
    W_dec[indices[2, 1], 4], values[2, 1] = value, 30.0
    flag = unwatched(device)
    decoder = Decoder(W_dec, b_dec, W_dec.dtype)
    decode.decode(values, indices, decoder, torch.empty_like(x), flag)
    assert int(flag.told) == int(flag.fault) == 1


def test_offsets_beyond_int32(device: torch.device) -> None:
    # Zero pages: only what is read takes memory.
    W_dec = torch.from_numpy(np.zeros((1 << 20, 2100), np.float16)).to(device)
    W_dec[-1, 3] = 7.0
    indices = torch.full((1, 2), len(W_dec) - 1, device=device)
    values = torch.ones(1, 2, dtype=torch.float16, device=device)
    x_hat = torch.full((1, 2100), float("nan"), dtype=torch.float16, device=device)
    flag = unwatched(device)
    decode.decode(values, indices, Decoder(W_dec, None, W_dec.dtype), x_hat, flag)
    assert int(flag.fault) == 0
    assert x_hat.nonzero().tolist() == [[0, 3]]
    assert x_hat[0, 3] == 14


def test_the_public_function_refuses_such_an_index(device: torch.device) -> None:
    values, W_dec, b_dec, _, indices = draw(4, 6, 50, 3, torch.float32, device)
    indices[0, 0] = 50
    with pytest.raises(ArgumentError, match=r"dictionary|d_sae = 50"):
        sparse_decode(values, indices, W_dec, b_dec, backend="triton")
        from lightsae_kernels.fault_flags import raise_if_flagged

        raise_if_flagged()


def test_indices_may_serve_dictionaries_of_different_heights(device: torch.device) -> None:
    indices, values = torch.tensor([[1, 0], [1, 2]], device=device), torch.ones(2, 2, device=device)
    for d_sae in (3, 5, 4):
        W_dec = torch.ones(d_sae, 2, device=device, requires_grad=True)
        sparse_decode(values, indices, W_dec, backend="triton").sum().backward()
        assert W_dec.grad is not None
        assert W_dec.grad[:, 0].tolist() == [1.0, 2.0, 1.0, 0.0, 0.0][:d_sae]


def test_a_narrow_copy_has_the_bits_of_rows_rounded_on_the_way(device: torch.device) -> None:
    values, W_dec, b_dec, x, indices = draw(19, 70, 50, 7, torch.float32, device)
    copy = W_dec.half()

    def run(narrow: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        leaves = [t.clone().requires_grad_() for t in (values, W_dec, b_dec)]
        options: dict[str, Any] = {"W_dec_narrow": narrow, "backend": "triton"}
        with torch.autocast(device.type, torch.float16):
            x_hat = sparse_decode(leaves[0], indices, *leaves[1:], **options)
            left = sparse_residual(x, leaves[0], indices, *leaves[1:], **options)
        loss = x_hat.sum() + left.error.mean()
        return (x_hat.detach(), *left, *torch.autograd.grad(loss, leaves))

    for one, other in zip(run(None), run(copy), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(run(copy.bfloat16())[0], run(None)[0]), (
        "a copy in another dtype is not taken"
    )


def test_in_mixed_precision_it_equals_the_definition(
    device: torch.device, assert_close: Close
) -> None:
    values, W_dec, b_dec, x, indices = draw(19, 70, 50, 7, torch.float32, device)

    def run(backend: Any, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        leaves = [t.to(dtype).requires_grad_() for t in (values, W_dec, b_dec)]
        with torch.autocast(device.type, torch.float16):
            x_hat = sparse_decode(leaves[0], indices, *leaves[1:], backend=backend)
            left = sparse_residual(x.to(dtype), leaves[0], indices, *leaves[1:], backend=backend)
        loss = x_hat.square().sum() + left.error.sum()
        return (x_hat.detach(), *left, *torch.autograd.grad(loss, leaves))

    names = ("x_hat", "residual", "error", "d_values", "d_W_dec", "d_b_dec")
    # The definition in float64 rounds W_dec as the kernels do; they also round the residual of the
    # second gradient.
    tolerance = dict.fromkeys(names, 2e-6) | {"d_values": 2e-3, "d_W_dec": 2e-3}
    pairs = zip(names, run("triton", torch.float32), run("reference", torch.float64), strict=True)
    for name, actual, expected in pairs:
        assert actual.dtype == torch.float32
        assert_close(name, actual.double(), expected, tolerance[name])
