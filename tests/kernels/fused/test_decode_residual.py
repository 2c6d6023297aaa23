"""The fused sparse_residual against the definition."""

from collections.abc import Callable

import pytest
import torch
from lightsae_kernels import sparse_residual

from .conftest import DTYPES
from .test_decode import TOLERANCE, draw

pytest.importorskip("lightsae_kernels.fused")
Close = Callable[..., None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("B", "d_in", "d_sae", "k"), [(19, 12, 50, 7), (1, 1, 1, 1), (3, 2100, 9, 5)]
)
def test_equals_the_definition(
    B: int, d_in: int, d_sae: int, k: int, parts: tuple[bool, bool], dtype: torch.dtype,
    device: torch.device, assert_close: Close,
) -> None:  # fmt: skip
    values, W_dec, b_dec, x, indices = draw(B, d_in, d_sae, k, dtype, device)
    generator = torch.Generator().manual_seed(6)
    upstream = [torch.randn(s, generator=generator).to(device) for s in ((B, d_in), (B,))]

    def run(backend: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        leaves = [t.to(dtype).clone().requires_grad_() for t in (x, values, W_dec, b_dec)]
        found = sparse_residual(leaves[0], leaves[1], indices, *leaves[2:], backend=backend)
        chosen = zip(found, upstream, parts, strict=True)
        loss = torch.stack([(out * up.to(out)).sum() for out, up, used in chosen if used]).sum()
        return (*found, *torch.autograd.grad(loss, leaves))

    names = ("residual", "error", "d_x", "d_values", "d_W_dec", "d_b_dec")
    ours = run("triton", dtype)
    assert ours[0].dtype == ours[1].dtype == torch.float32
    for name, actual, expected in zip(names, ours, run("reference", torch.float64), strict=True):
        assert_close(name, actual, expected, TOLERANCE[dtype])


def test_an_empty_batch_leaves_nothing(device: torch.device) -> None:
    values, W_dec, b_dec, x, indices = draw(0, 6, 50, 3, torch.float32, device)
    found = sparse_residual(x, values, indices, W_dec, b_dec, backend="triton")
    assert found.residual.shape == (0, 6)
    assert found.error.shape == (0,)
