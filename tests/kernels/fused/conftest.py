"""Every test of a kernel runs interpreted, and on a GPU where there is one."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

INTERPRETED = not torch.cuda.is_available()
DTYPES = [
    pytest.param(torch.float32, id="fp32"),
    pytest.param(torch.float16, id="fp16"),
    pytest.param(
        torch.bfloat16,
        id="bf16",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(INTERPRETED, reason="the interpreter gets bf16 products wrong"),
        ],
    ),
]


@pytest.fixture(
    params=[
        pytest.param("cpu", id="interpreted"),
        pytest.param("cuda", id="cuda", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    if (request.param == "cpu") != INTERPRETED:
        pytest.skip("needs a GPU" if INTERPRETED else "compiled kernels run on the GPU only")
    return torch.device(request.param)


@pytest.fixture(params=["library", "fused"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who multiplies, where the fused product serves at all."""
    tile_configs = pytest.importorskip("lightsae_kernels.fused.tile_configs")
    fused = request.param == "fused"
    monkeypatch.setattr(
        tile_configs, "INTERPRETED_PRODUCT", tile_configs.INTERPRETED if fused else None
    )
    least = 1 << 40 if fused else 0
    monkeypatch.setattr(
        tile_configs, "LIBRARY_FROM", dict.fromkeys(tile_configs.LIBRARY_FROM, least)
    )
    return str(request.param)


@pytest.fixture(autouse=True)
def poisoned_outputs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a kernel does not write is NaN, or an index that does not exist."""
    empty, new_empty = torch.empty, Tensor.new_empty

    def poison(tensor: Tensor) -> Tensor:
        return tensor.fill_(float("nan") if tensor.is_floating_point() else -77)

    monkeypatch.setattr(torch, "empty", lambda *a, **o: poison(empty(*a, **o)))
    monkeypatch.setattr(Tensor, "new_empty", lambda *a, **o: poison(new_empty(*a, **o)))
    yield
