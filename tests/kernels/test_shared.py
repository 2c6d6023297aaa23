"""What is remembered with a tensor holds until the tensor changes."""

from typing import Any

import pytest
import torch
from lightsae_kernels import encode_residual
from lightsae_kernels.shared import narrow, recall, remember, shared_by


def test_a_copy_is_taken_until_the_tensor_changes() -> None:
    W = torch.randn(3, 2)
    copy = torch.zeros(3, 2, dtype=torch.bfloat16)
    remember(W, copy)
    assert narrow(W, torch.bfloat16) is copy
    assert narrow(W, torch.float16).dtype == torch.float16
    W.add_(1)
    assert torch.equal(narrow(W, torch.bfloat16), W.bfloat16())


def test_what_is_shared_is_made_once_for_each_state_of_a_tensor() -> None:
    indices = torch.arange(3)
    shared = shared_by(indices)
    assert shared_by(indices) is shared
    indices.add_(1)
    assert shared_by(indices) is not shared


def test_an_inference_tensor_remembers_nothing() -> None:
    with torch.inference_mode():
        tensor = torch.ones(2)
    remember(tensor, "something")
    assert recall(tensor) is None


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_products_take_the_copy_that_is_remembered(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "triton" and (pytest.importorskip("triton") and torch.cuda.is_available()):
        pytest.skip("the kernels are not interpreted where there is a GPU")
    x, W, b = torch.ones(2, 3), torch.ones(4, 3), torch.zeros(4)
    remember(W, torch.full((4, 3), 2.0, dtype=torch.float16))

    def first_value() -> float:
        with torch.autocast("cpu", torch.float16):
            encoded, _ = encode_residual(x, W, b, W, torch.zeros(3), 1, backend=backend)
        return encoded.values[0, 0].item()

    assert first_value() == 6
    W.mul_(1)
    assert first_value() == 3
