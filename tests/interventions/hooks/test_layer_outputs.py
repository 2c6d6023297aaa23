"""Outputs of all shapes that layers give, and what cannot be told from them."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interventions import Scale, ZeroAblate, attach

from .models import identity_sae

Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Output:
    hidden: Tensor
    extra: Tensor | None = None


WRAPPERS = {
    "tuple": lambda y: (None, y, "more"),
    "list": lambda y: [y, torch.zeros(2)],
    "dict": lambda y: {"hidden": y, "n": 3},
    "ordered": lambda y: OrderedDict(hidden=y),
    "named": lambda y: Pair(y, None),
    "dataclass": lambda y: Output(y),
}


def inner(output):
    if isinstance(output, dict):
        return output["hidden"]
    if isinstance(output, Output):
        return output.hidden
    return next(part for part in output if isinstance(part, Tensor) and part.ndim == 3)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_the_tensor_in_an_output_is_replaced_and_the_rest_stays(kind):
    class Wrapping(nn.Module):
        def forward(self, x: Tensor):
            return WRAPPERS[kind](x)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Wrapping()

        def forward(self, x: Tensor):
            return self.block(x)

    x = torch.rand(2, 3, 4, dtype=torch.float64) + 0.1
    model = Model()
    with attach(model, {"block": identity_sae(4)}) as attached, attached.edit(ZeroAblate([1])):
        found = model(x)
    bare = model(x)
    assert isinstance(found, type(bare))
    expected = x.clone()
    expected[..., 1] = 0
    assert torch.equal(inner(found), expected)
    assert torch.equal(inner(bare), x)
    if kind == "tuple":
        assert found[0] is None and found[2] == "more"
    if kind == "dict":
        assert found["n"] == 3


class Giving(nn.Module):
    """A model with a layer that gives what is asked for."""

    def __init__(self, give) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.give = give

    def forward(self, x: Tensor):
        return self.layer(self.give(x))


SHAPES = {
    "rows": ((5, 4), None, -1, (5,)),
    "tokens": ((2, 3, 4), None, -1, (2, 3)),
    "map": ((2, 4, 3, 5), None, 1, (2, 3, 5)),
    "map-last": ((2, 3, 5, 4), None, -1, (2, 3, 5)),
    "told": ((2, 4, 4, 4), "BCHW", 1, (2, 4, 4)),
    "features-second": ((2, 4, 7), None, 1, (2, 7)),
    "sequence-first": ((3, 2, 4), "TBD", -1, (2, 3)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_features_are_found_and_come_back_where_they_were(name):
    shape, layout, axis, lead = SHAPES[name]
    torch.manual_seed(0)
    y = torch.rand(shape, dtype=torch.float64) + 0.1
    model = Giving(lambda x: y)
    layouts = None if layout is None else {"layer": layout}
    with (
        attach(model, {"layer": identity_sae(4)}, layouts=layouts) as attached,
        attached.record() as recording,
        attached.edit(Scale([2], 3.0)),
    ):
        found = model(torch.zeros(lead[0], 1))
    expected = y.clone()
    expected.select(axis, 2).mul_(3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert recording["layer"].lead == lead


def test_sequence_first_is_seen_from_the_batch_or_from_attention():
    y = torch.rand(3, 2, 4, dtype=torch.float64) + 0.1
    model = Giving(lambda x: y)
    with (
        attach(model, {"layer": identity_sae(4)}) as attached,
        attached.edit(ZeroAblate([1]), samples=[1], positions=[2]),
    ):
        found = model(torch.zeros(2, 1))
    assert found[2, 1, 1] == 0 and int((found == 0).sum()) == 1
    encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=False).double().eval()
    model = nn.Sequential(encoder)
    square = torch.randn(2, 2, 4, dtype=torch.float64)
    with attach(model, {"0": identity_sae(4)}) as attached, attached.record() as recording:
        out = model(square)
    assert torch.equal(recording["0"].to_dense()[0, 1], out[1, 0].relu())


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda x: torch.zeros(2, 4, 4, 4), r"say which axis is which with layouts, such as"),
        (lambda x: torch.zeros(2, 3, 4, 4, 4), r"say which axis is which with layouts, such as"),
        (lambda x: torch.zeros(2, 3, 5), r"gives \[2, 3, 5\], the autoencoder there has width 4"),
        (lambda x: "text", "gives str without a tensor"),
        (lambda x: (None, 3), "gives tuple without a tensor"),
        (lambda x: torch.zeros(2, 3, 4, dtype=torch.long), "the autoencoder there has width 4"),
    ],
)
def test_what_cannot_be_told_is_one_line(give, message):
    model = Giving(give)
    with (
        pytest.raises(LightsaeError, match=message) as caught,
        attach(model, {"layer": identity_sae(4)}),
    ):
        model(torch.zeros(2, 1))
    assert "\n" not in str(caught.value)


def test_a_layout_of_another_tensor_is_told():
    model = Giving(lambda x: torch.zeros(2, 3, 4, dtype=torch.float64))
    with (
        pytest.raises(LightsaeError, match=r"gives \[2, 3, 4\], its layout is 'BCHW'"),
        attach(model, {"layer": identity_sae(4)}, layouts={"layer": "BCHW"}),
    ):
        model(torch.zeros(2, 1))


def test_rows_without_positions_refuse_them():
    model = Giving(lambda x: torch.ones(2, 4, dtype=torch.float64))
    with (
        pytest.raises(LightsaeError, match="gives a row for each sample: it has no positions"),
        attach(model, {"layer": identity_sae(4)}) as attached,
        attached.edit(ZeroAblate([1]), positions=[0]),
    ):
        model(torch.zeros(2, 1))
