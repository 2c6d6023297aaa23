"""Which implementation serves a tensor, and what is said where the kernels cannot."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightsae_kernels import ArgumentError, backends, cpu, encode_plan, reference

SMALL: dict[str, Any] = {"dtypes": (torch.float32,), "k": 1, "d_in": 4}


class OnGpu(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    device = torch.device("cuda", 0)
    is_cuda = True


@pytest.fixture
def tensor() -> torch.Tensor:
    return torch.zeros(2).as_subclass(OnGpu)


@pytest.fixture(autouse=True)
def nothing_said_yet() -> Iterator[None]:
    backends._obstacle.cache_clear()
    backends._warn_once.cache_clear()
    yield
    backends._obstacle.cache_clear()
    backends._warn_once.cache_clear()


def capability(monkeypatch: pytest.MonkeyPatch, found: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: found)


def test_a_cpu_tensor_never_meets_triton() -> None:
    assert backends.choose_backend("auto", torch.zeros(2), **SMALL) is cpu


def test_a_gpu_gets_the_kernels(tensor: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = pytest.importorskip("lightsae_kernels.fused")
    capability(monkeypatch, (9, 0))
    assert backends.choose_backend("auto", tensor, **SMALL) is fused
    assert backends.finds_faults(fused, tensor)
    assert not backends.finds_faults(reference, tensor)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("old", r"compute capability \(7, 5\) is older than \(8, 0\)"),
        ("triton", "triton is not installed"),
        ("hip", "the kernels are for NVIDIA GPUs"),
        ("k", "k is larger than 512"),
        ("d_in", "d_in is larger than 8192"),
        ("dtype", r"dtype torch.float64 has no kernel"),
    ],
)
def test_what_the_kernels_do_not_serve_falls_back_with_one_warning(
    change: str, said: str, tensor: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    capability(monkeypatch, (7, 5) if change == "old" else (9, 0))
    if change == "triton":
        monkeypatch.setattr(backends, "find_spec", lambda name: None)
    if change == "hip":
        monkeypatch.setattr(torch.version, "hip", "6.4")
    sizes = dict(SMALL)
    if change in ("k", "d_in"):
        sizes |= {"k": 513} if change == "k" else {"d_in": 8193}
    if change == "dtype":
        sizes |= {"dtypes": (torch.float32, torch.float64)}
    with pytest.warns(UserWarning, match=f"runs unfused on this GPU: {said}"):
        assert backends.choose_backend("auto", tensor, **sizes) is reference
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if change in ("k", "d_in"):
            sizes[change] += 1
        assert backends.choose_backend("auto", tensor, **sizes) is reference
    with pytest.raises(ArgumentError, match=said):
        backends.choose_backend("triton", tensor, **sizes)


def test_the_cpu_path_refuses_other_devices(tensor: torch.Tensor) -> None:
    with pytest.raises(RuntimeError, match="backend='cpu' needs CPU tensors, got cuda:0"):
        backends.choose_backend("cpu", tensor, **SMALL)


def test_another_name_is_refused() -> None:
    with pytest.raises(ArgumentError, match="'reference', 'cpu' or 'triton', got 'cuda'"):
        backends.choose_backend("cuda", torch.zeros(2), **SMALL)


def test_the_interpreter_refuses_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ArgumentError, match="interpreter gets bfloat16 products wrong"):
        backends.choose_backend("triton", torch.zeros(2), **SMALL | {"dtypes": (torch.bfloat16,)})


def test_autocast_decides_the_dtype_of_the_product() -> None:
    assert encode_plan.product_dtype(torch.zeros(2)) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert encode_plan.product_dtype(torch.zeros(2)) == torch.bfloat16
