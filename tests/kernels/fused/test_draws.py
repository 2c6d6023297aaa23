"""Any shape, dtype and values: the operations against the definition, at their own support."""

from typing import Any

import pytest
import torch

from .conftest import INTERPRETED

hypothesis = pytest.importorskip("hypothesis")
pytest.importorskip("lightsae_kernels.fused")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from lightsae_kernels import encode_topk, sparse_residual  # noqa: E402

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="draws run where nothing is compiled")
TOLERANCE = {torch.float32: 5e-6, torch.float16: 5e-3}
SHAPES = {"B": st.integers(1, 20), "d_in": st.integers(1, 40), "d_sae": st.integers(1, 150)}


def draw(seed: int, levels: int, dtype: torch.dtype, *shapes: tuple[int, ...]) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(*s, generator=generator) * levels).round().to(dtype) / levels for s in shapes
    ]


def assert_close(name: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    error = torch.linalg.vector_norm(actual.double() - expected)
    assert error <= tolerance * torch.linalg.vector_norm(expected).clamp_min(1e-9), name


@given(
    **SHAPES, share=st.floats(0, 1), levels=st.sampled_from([1, 4, 1024]),
    seed=st.integers(0, 2**16), dtype=st.sampled_from([torch.float32, torch.float16]),
    regularizer=st.sampled_from([None, "off_support_l1", "l1_l2_ratio"]), masked=st.booleans(),
)  # fmt: skip
@settings(max_examples=8, deadline=None)
def test_encode_topk(
    B: int, d_in: int, d_sae: int, share: float, levels: int, seed: int, dtype: torch.dtype,
    regularizer: Any, masked: bool,
) -> None:  # fmt: skip
    k = max(1, round(share * d_sae))
    shapes = ((B, d_in), (d_sae, d_in), (d_sae,), (d_in,))
    tensors = [t.requires_grad_() for t in draw(seed, levels, dtype, *shapes)]
    options: dict[str, Any] = {"regularizer": regularizer, "batch_active_only": masked}
    ours = encode_topk(*tensors, k, backend="triton", **options)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    options |= {"indices": ours.indices, "batch_active": ours.batch_active}
    want = encode_topk(*exact, k, backend="reference", **options)
    assert_close("values", ours.values, want.values, TOLERANCE[dtype])
    # Reg 1 is a difference: what counts is its size beside the activations.
    size = want.penalty.abs() + want.values.abs().sum() / B
    assert (ours.penalty - want.penalty).abs() <= TOLERANCE[dtype] * size.clamp_min(1e-9)
    for name, a, b in zip(
        ("x", "W_enc", "b_enc", "b_dec"),
        torch.autograd.grad(ours.values.float().sum() + ours.penalty, tensors),
        torch.autograd.grad(want.values.sum() + want.penalty, exact),
        strict=True,
    ):
        assert_close(f"d_{name}", a, b, TOLERANCE[dtype])


@given(
    **SHAPES, k=st.integers(1, 9), seed=st.integers(0, 2**16),
    dtype=st.sampled_from([torch.float32, torch.float16]),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_sparse_residual(
    B: int, d_in: int, d_sae: int, k: int, seed: int, dtype: torch.dtype
) -> None:
    shapes = ((B, d_in), (B, k), (d_sae, d_in), (d_in,))
    x, values, W_dec, b_dec = draw(seed, 64, dtype, *shapes)
    indices = torch.randint(0, d_sae, (B, k), generator=torch.Generator().manual_seed(seed))
    ours = sparse_residual(x, values, indices, W_dec, b_dec, backend="triton")
    exact = [t.double() for t in (x, values, W_dec, b_dec)]
    want = sparse_residual(exact[0], exact[1], indices, *exact[2:], backend="reference")
    assert_close("residual", ours.residual, want.residual, TOLERANCE[dtype])
    assert_close("error", ours.error, want.error, TOLERANCE[dtype])
