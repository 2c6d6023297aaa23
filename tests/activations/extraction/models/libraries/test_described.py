import math

import pytest
import torch
from torch import nn

from lightsae.activations.extraction.models.libraries.described import (
    describe,
    images_part,
    prefix_tokens,
    share,
    square,
)


class _Tokens(nn.Module):
    """As models without a word on it keep their class and register tokens."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.embeddings = nn.Module()
        for name, shape in shapes.items():
            self.embeddings.register_parameter(name, nn.Parameter(torch.zeros(shape)))


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (_Tokens(patches=(4, 4)), 0),
        (_Tokens(cls_token=(1, 1, 4)), 1),
        (_Tokens(class_embedding=(4,)), 1),
        (_Tokens(cls_token=(1, 1, 4), distillation_token=(1, 1, 4)), 2),
        (_Tokens(cls_token=(1, 1, 4), register_tokens=(1, 4, 4)), 5),
    ],
    ids=["none", "class", "clip", "distilled", "registers"],
)
def test_class_and_register_tokens_are_counted(module: nn.Module, count: int) -> None:
    assert prefix_tokens(module) == count


def test_what_an_inner_model_says_goes_before_what_is_counted() -> None:
    inner = _Tokens(cls_token=(1, 1, 4))
    inner.num_prefix_tokens = 7  # type: ignore[assignment]
    assert prefix_tokens(nn.Sequential(inner)) == 7


@pytest.mark.parametrize("name", ["visual", "vision_model"])
def test_the_images_part_is_described(name: str) -> None:
    whole, part = nn.Module(), _Tokens(cls_token=(1, 1, 4))
    setattr(whole, name, part)
    assert images_part(whole) is part
    assert describe(whole, {"crop_pct": 0.5}) is whole
    assert (part.num_prefix_tokens, part.preparation) == (1, {"crop_pct": 0.5})
    assert not hasattr(whole, "num_prefix_tokens")


def test_a_model_of_images_alone_is_its_own_part() -> None:
    module = nn.Linear(2, 2)
    assert images_part(module) is module
    assert not hasattr(describe(module, None), "preparation")


def test_a_size_is_said_in_several_ways() -> None:
    assert square((256, 192)) == (256, 192)
    assert square({"width": 192, "height": 256}) == (256, 192)


def test_timm_resizes_to_the_side_that_was_meant() -> None:
    pairs = [(seen, side) for seen in (32, 224, 299, 384) for side in range(seen, 2 * seen)]
    assert any(math.floor(seen / (seen / side)) != side for seen, side in pairs)
    assert all(math.floor(seen / share(seen, side)) == side for seen, side in pairs)
