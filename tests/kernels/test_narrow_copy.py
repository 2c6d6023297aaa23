"""A narrow copy of a weight holds until the weight changes, and products take it where given."""

import pickle
from copy import deepcopy
from typing import Any

import pytest
import torch
from lightsae_kernels import ArgumentError, NarrowCopy, encode_residual, encode_topk
from torch import Tensor, nn


@pytest.fixture
def kept() -> tuple[nn.Parameter, NarrowCopy]:
    W, copy = nn.Parameter(torch.randn(3, 2)), NarrowCopy(torch.bfloat16)
    copy.write(W)
    return W, copy


def test_it_holds_until_the_weight_changes(kept: tuple[nn.Parameter, NarrowCopy]) -> None:
    W, copy = kept
    found = copy.of(W)
    assert found is not None
    assert torch.equal(found, W.bfloat16())
    with torch.no_grad():
        W.add_(1)
    assert copy.of(W) is None
    copy.write(W)
    assert copy.of(W) is found, "the memory is written again"
    assert torch.equal(found, W.bfloat16())


@pytest.mark.parametrize("change", ["another", "data", "loaded", "assigned"])
def test_it_is_of_one_weight_in_one_state(change: str) -> None:
    layer, copy = nn.Linear(2, 3, bias=False), NarrowCopy(torch.bfloat16)
    copy.write(layer.weight)
    state = {"weight": torch.ones(3, 2)}
    if change == "another":
        layer.weight = nn.Parameter(torch.ones(3, 2))
    elif change == "data":
        layer.weight.data = torch.ones(3, 2)
    else:
        layer.load_state_dict(state, assign=change == "assigned")
    assert copy.of(layer.weight) is None


@pytest.mark.parametrize("how", [deepcopy, lambda kept: pickle.loads(pickle.dumps(kept))])
def test_a_copied_one_holds_nothing(how: Any, kept: tuple[nn.Parameter, NarrowCopy]) -> None:
    W, copy = how(kept)
    assert copy.of(W) is None
    assert copy.dtype == torch.bfloat16
    copy.write(W)
    assert torch.equal(copy.of(W), kept[1].of(kept[0]))


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("operation", [encode_topk, encode_residual])
def test_products_take_the_copy_that_is_given(backend: Any, operation: Any) -> None:
    if backend == "triton" and (pytest.importorskip("triton") and torch.cuda.is_available()):
        pytest.skip("the kernels are not interpreted where there is a GPU")
    x, W, b = torch.ones(2, 3), torch.ones(4, 3), torch.zeros(4)
    weights = (W, b) if operation is encode_topk else (W, b, W)

    def first_value(narrow: Tensor | None) -> float:
        with torch.autocast("cpu", torch.float16):
            found = operation(x, *weights, torch.zeros(3), 1, W_enc_narrow=narrow, backend=backend)
        encoded = found if operation is encode_topk else found[0]
        return float(encoded.values[0, 0])

    assert first_value(torch.full((4, 3), 2.0, dtype=torch.float16)) == 6
    assert first_value(torch.full((4, 3), 2.0, dtype=torch.bfloat16)) == 3, "another dtype"
    assert first_value(None) == 3


def test_a_copy_of_another_shape_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"W_enc_narrow must be \[d_sae, d_in\], as W_enc"):
        encode_topk(
            torch.ones(2, 3), torch.ones(4, 3), torch.zeros(4), torch.zeros(3), 1,
            W_enc_narrow=torch.ones(4, 2),
        )  # fmt: skip
