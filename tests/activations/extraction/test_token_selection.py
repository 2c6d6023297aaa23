from typing import Any

import pytest
import torch
from torch import nn

from lightsae.activations.extraction.token_selection import select_tokens
from lightsae.errors import LightsaeError


def _module(**attributes: Any) -> nn.Module:
    module = nn.Identity()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


VIT = _module(num_prefix_tokens=2, cls_token=torch.zeros(1))
SEQUENCE = torch.arange(2 * 5 * 3.0).view(2, 5, 3)
MAP = torch.arange(2 * 2 * 2 * 3.0).view(2, 2, 2, 3)


@pytest.mark.parametrize(
    ("kind", "expected", "positions"),
    [
        ("class", SEQUENCE[:, :1], [0]),
        ("patch", SEQUENCE[:, 2:], [2, 3, 4]),
        ("pooled", SEQUENCE[:, 2:].mean(1, keepdim=True), [0]),
        ("all", SEQUENCE, [0, 1, 2, 3, 4]),
    ],
)
def test_tokens_of_a_vit(kind: str, expected: torch.Tensor, positions: list[int]) -> None:
    tokens, index = select_tokens(SEQUENCE, kind, VIT)
    assert torch.equal(tokens, expected)
    assert index.tolist() == positions


def test_given_prefix_tokens_go_before_those_of_the_module() -> None:
    tokens, index = select_tokens(SEQUENCE, "patch", VIT, prefix_tokens=1)
    assert torch.equal(tokens, SEQUENCE[:, 1:])
    assert index.tolist() == [1, 2, 3, 4]


def test_places_of_a_map() -> None:
    tokens, index = select_tokens(MAP, "patch", _module())
    assert torch.equal(tokens[1, 3], MAP[1, 1, 1])
    assert index.tolist() == [0, 1, 2, 3]
    assert torch.equal(select_tokens(MAP, "pooled", _module())[0][:, 0], MAP.mean((1, 2)))


@pytest.mark.parametrize("kind", ["class", "pooled", "all"])
def test_one_vector_is_one_token(kind: str) -> None:
    tokens, index = select_tokens(SEQUENCE[:, 0], kind, _module())
    assert torch.equal(tokens[:, 0], SEQUENCE[:, 0])
    assert index.tolist() == [0]


@pytest.mark.parametrize(
    ("output", "kind", "module", "message"),
    [
        (SEQUENCE, "cls", VIT, "tokens is 'cls', expected one of class, patch, pooled, all"),
        (SEQUENCE[:, 0], "patch", VIT, "one vector per image"),
        (MAP, "class", VIT, "a map without one"),
        (SEQUENCE, "class", _module(num_prefix_tokens=0), "has no class token"),
        (SEQUENCE, "class", _module(num_prefix_tokens=4, cls_token=None), "has no class token"),
        (SEQUENCE, "patch", _module(num_prefix_tokens=5), "5 prefix tokens only"),
        (SEQUENCE, "patch", _module(), "model.prefix_tokens: Identity does not say"),
    ],
)
def test_tokens_that_are_not_there_are_an_error(
    output: torch.Tensor, kind: str, module: nn.Module, message: str
) -> None:
    with pytest.raises(LightsaeError, match=message):
        select_tokens(output, kind, module)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_mean_of_many_tokens_is_summed_in_float32(dtype: torch.dtype) -> None:
    tokens = torch.full((1, 2000, 3), 100.0, dtype=dtype)
    present = torch.ones(1, 2000, dtype=torch.bool)
    pooled, _ = select_tokens(tokens, "pooled", _module(), 0, present)
    assert pooled.dtype == dtype
    assert torch.equal(pooled, torch.full((1, 1, 3), 100.0, dtype=dtype))
