"""Which axis of a layer's output is which, by what ran before it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models import LayerTap, ModelOptions, load_model
from lightsae.activations.extraction.models.layout_probing import find_layouts
from lightsae.errors import LightsaeError


class _Permute(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.axes)


class _Cut(nn.Module):
    """All but the last place, as behind the positional convolution of wav2vec 2.0."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :-1]


def _layout(module: nn.Module, layer: str, *shape: int, **options: Any) -> str:
    (found,) = find_layouts(LayerTap(module.eval(), layer), torch.rand(shape), **options)
    return found.layout


def _convnext(size: int) -> nn.Module:
    """A map to channels last, a linear layer, and back; of as many channels as rows and columns."""
    to_last, to_second = _Permute(0, 2, 3, 1), _Permute(0, 3, 1, 2)
    return nn.Sequential(
        nn.Conv2d(3, size, 1), to_last, nn.Linear(size, size), nn.GELU(), to_second
    )


@pytest.mark.parametrize(
    ("module", "layer", "shape", "layout"),
    [
        (nn.Sequential(nn.Conv2d(3, 5, 2)), "0", (2, 3, 6, 9), "BCHW"),
        (nn.Sequential(nn.Conv2d(3, 5, (5, 1)), nn.ReLU()), "1", (2, 3, 6, 6), "BCHW"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "1", (2, 3, 6, 6), "BCHW"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)), "1", (2, 3, 6, 6), "BCHW"),
        (nn.Sequential(_Permute(0, 2, 3, 1), nn.Linear(3, 6)), "1", (2, 3, 6, 6), "BHWC"),
        (nn.Sequential(_Permute(0, 2, 3, 1), nn.LayerNorm(3)), "1", (2, 3, 6, 6), "BHWC"),
        (nn.Sequential(nn.Conv1d(3, 5, 2), nn.GELU()), "1", (2, 3, 7), "BDT"),
        (nn.Sequential(nn.Conv1d(3, 5, 2), nn.AdaptiveAvgPool1d(1)), "1", (2, 3, 7), "BDT"),
        (nn.Sequential(nn.Conv1d(3, 5, 2, padding=1), _Cut(), nn.GELU()), "1", (2, 3, 7), "BDT"),
        (nn.Sequential(nn.Conv1d(3, 5, 2, padding=1), _Cut(), nn.GELU()), "2", (2, 3, 7), "BDT"),
        (nn.Sequential(nn.Linear(7, 5), _Cut(), nn.GELU()), "2", (2, 3, 7), "BTD"),
        (nn.Sequential(nn.Linear(7, 5), nn.GELU()), "1", (2, 3, 7), "BTD"),
        (nn.Sequential(nn.Linear(7, 5), nn.Identity(), nn.Conv1d(3, 3, 1)), "1", (2, 3, 7), "BTD"),
        (nn.Sequential(nn.Linear(7, 7), nn.Conv1d(3, 3, 1)), "1", (2, 3, 7), "BDT"),
        (nn.Sequential(nn.Linear(7, 7)), "0", (2, 7), "BD"),
        (_convnext(4), "0", (2, 3, 4, 4), "BCHW"),
        (_convnext(4), "2", (2, 3, 4, 4), "BHWC"),
        (_convnext(4), "4", (2, 3, 4, 4), "BCHW"),
        (_convnext(5), "3", (2, 3, 4, 4), "BHWC"),
    ],
)
def test_the_axis_of_the_features(
    module: nn.Module, layer: str, shape: tuple[int, ...], layout: str
) -> None:
    assert _layout(module, layer, *shape) == layout


class _Attention(nn.Module):
    """Attention over a sequence, by hand; `first` is before the images, `inner` one per head."""

    def __init__(self, first: bool, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, 2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=not first)
        self.block = _Heads(norm or nn.Identity())
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2)
        tokens = x.permute(2, 0, 1) if self.first else x.transpose(1, 2)
        tokens, _ = self.attention(tokens, tokens, tokens)
        return self.block(tokens)


class _Heads(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.weights = norm, nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.norm(x.unflatten(-1, (2, 4)).transpose(1, 2))
        return self.weights(heads @ heads.transpose(2, 3)) @ heads


class _TokenMixing(nn.Module):
    """A linear layer over the tokens of a map, and back, as in an MLP-Mixer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.act = nn.Conv2d(3, 8, 4, 4), nn.Linear(16, 16), nn.GELU()
        self.back = _Permute(0, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.act(self.mix(self.embed(x).flatten(2))))


class _WithClassToken(nn.Module):
    """A class token before the places of a map, still behind the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.tokens, self.num_prefix_tokens = nn.Conv2d(3, 8, 4, 4), nn.Identity(), 1

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(nn.functional.pad(self.embed(x).flatten(2), (1, 0)))


@pytest.mark.parametrize(
    ("module", "layer", "last"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2)), "1", 16),
        (_TokenMixing(), "mix", 16),
        (_TokenMixing(), "act", 16),
        (_WithClassToken(), "tokens", 17),
    ],
    ids=["flattened", "linear", "after it", "class token"],
)
def test_places_of_a_map_are_not_taken_for_features(
    module: nn.Module, layer: str, last: int
) -> None:
    says = (
        rf"^layer '{layer}' gives \[2, 8, {last}\] .*places of a map: say which axis is which wit"
    )
    with pytest.raises(LightsaeError, match=says):
        _layout(module, layer, 2, 3, 16, 16)
    assert _layout(module, layer, 2, 3, 16, 16, declared="BDT") == "BDT"


def test_tokens_that_were_places_of_a_map_have_features_last() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), _Permute(0, 2, 1))
    assert _layout(flat, "2", 2, 3, 16, 16) == "BTD"
    assert _layout(_TokenMixing(), "back", 2, 3, 16, 16) == "BTD"


# 16 tokens; or as many tokens as there are numbers in a head, which looks like a map.
@pytest.mark.parametrize("side", [8, 4])
@pytest.mark.parametrize("layer", ["block", "block.norm", "block.weights"])
@pytest.mark.parametrize("norm", [nn.Identity(), nn.LayerNorm(4)], ids=["none", "norm"])
def test_heads_are_not_a_map(side: int, layer: str, norm: nn.Module) -> None:
    with pytest.raises(LightsaeError, match="which is not known to be a map: say which axis is wh"):
        _layout(_Attention(False, norm), layer, 2, 3, side, side)
    assert _layout(_Attention(False, norm), layer, 2, 3, side, side, declared="BCTD") == "BCTD"


def test_the_sequence_of_an_attention_may_come_first() -> None:
    assert _layout(_Attention(True), "attention", 2, 3, 8, 8) == "TBD"
    assert _layout(_Attention(False), "attention", 2, 3, 8, 8) == "BTD"


class _OverPlaces(nn.Module):
    """Attention between the places of a map, which no sequence tells from one."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return self.weights((flat.transpose(1, 2) @ flat).softmax(-1)[:, None])


def test_attention_weights_over_a_map_are_not_a_map() -> None:
    with pytest.raises(LightsaeError, match=r"gives \[3, 1, 64, 64\] .* not known to be a map"):
        _layout(nn.Sequential(_OverPlaces()), "0.weights", 3, 3, 8, 8)


@pytest.mark.parametrize(("said", "layout"), [("NHWC", "BHWC"), ("NCHW", None), (None, None)])
def test_where_nothing_else_tells_the_model_does(said: str | None, layout: str | None) -> None:
    module = nn.Sequential(_Permute(0, 2, 3, 1))
    if said is not None:
        module.output_fmt = said  # type: ignore[assignment]
    if layout is None:
        with pytest.raises(LightsaeError, match="not known to be a map"):
            _layout(module, "0", 2, 3, 6, 9)
    else:
        assert _layout(module, "0", 2, 3, 6, 9) == layout


def test_of_a_model_with_channels_last_its_convolutions_have_them_second() -> None:
    options = ModelOptions(name="test_mambaout", pretrained=False)
    module = load_model(options)
    assert module.output_fmt == "NHWC"
    layers = ["stem.conv1", "stem.act", "stages.0.blocks.0"]
    found = find_layouts(LayerTap(module, layers), torch.rand(1, 3, 64, 64))
    assert [known.layout for known in found] == ["BCHW", "BCHW", "BHWC"]


def test_windows_of_a_block_are_refused_and_its_output_is_taken() -> None:
    module = load_model(ModelOptions(name="test_maxvit", pretrained=False))
    with pytest.raises(
        LightsaeError, match=r"gives \[128, 5, 5, 32\] for 2 .*name the block aroun"
    ):
        _layout(module, "stages.0.blocks.0.attn_block.attn", 1, 3, 160, 160)
    assert _layout(module, "stages.0.blocks.0.attn_block", 1, 3, 160, 160) == "BHWC"


class _Mixing(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.layer = how, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "sorted":
            return self.layer(x[x.flatten(1).sum(1).argsort()])
        if self.how == "slightly":
            return self.layer(x + 0.05 * x.mean(0))
        return self.layer(x - x.mean(0))


@pytest.mark.parametrize("how", ["sorted", "centred", "slightly"])
def test_rows_that_depend_on_the_other_images_are_refused(how: str) -> None:
    images = torch.rand(3, 5, 4) - torch.tensor([0.0, 0.1, 0.2])[:, None, None]
    says = r"^model: _Mixing gives other rows of layer 'layer' for the same images when another com"
    with pytest.raises(LightsaeError, match=says):
        find_layouts(LayerTap(_Mixing(how), "layer"), images)


class _Rounding(nn.Module):
    """Rows that differ by half a percent with the number of images, as rounded to bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * (1 + 0.005 * (len(x) % 2)))


def test_rounding_of_a_reduced_dtype_is_no_dependence() -> None:
    tap, images = LayerTap(_Rounding(), "layer"), torch.rand(3, 5, 4)
    with pytest.raises(LightsaeError, match=r"gives other rows of layer 'layer'"):
        find_layouts(tap, images)
    (found,) = find_layouts(tap, images, compute="bfloat16")
    assert found.layout == "BTD"


def test_an_output_without_numbers_is_refused() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(2, 2), nn.Unflatten(2, (1,)))
    module.append(_Nothing())
    with pytest.raises(
        LightsaeError, match=r"gives \[3, 0, 1\] .*: expected a row or more for each"
    ):
        _layout(module, "3", 3, 3, 4)


class _Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :0]


def test_batch_statistics_in_training_mode_are_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    says = r"^model: 1 is in training mode, rows would depend on the other images of a batch: call"
    with pytest.raises(LightsaeError, match=says):
        find_layouts(LayerTap(module, "1"), torch.rand(2, 3, 4, 4))


@pytest.mark.parametrize(
    "module", [nn.Dropout(0.5), nn.RReLU()], ids=["dropout", "randomized ReLU"]
)
def test_what_draws_in_training_mode_is_refused(module: nn.Module) -> None:
    with pytest.raises(LightsaeError, match=r"^model: Sequential is random: layer .0. gives other"):
        find_layouts(LayerTap(nn.Sequential(module), "0"), -torch.rand(2, 3, 4, 4))


def test_a_model_that_the_layers_do_not_need_to_the_end_may_fail_behind_them() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(99, 1))
    assert _layout(module, "0", 2, 3, 4) == "BTD"


def test_a_compiled_model_tells_as_much() -> None:
    module: Any = nn.Sequential(nn.Conv1d(3, 5, 2), nn.GELU()).eval()
    module[1] = torch.compile(module[1], backend="eager")
    compiled: Any = torch.compile(module, backend="eager")
    (found,) = find_layouts(LayerTap(compiled, "1"), torch.rand(2, 3, 7))
    assert (found.layout, found.notes) == ("BDT", [])


@pytest.mark.parametrize(("images", "runs"), [(1, [2, 2, 1]), (2, [2, 2, 1]), (64, [3, 3, 2])])
def test_no_more_images_than_a_batch_has_are_run_but_two(images: int, runs: list[int]) -> None:
    module, found = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), []
    module[0].register_forward_hook(lambda *parts: found.append(len(parts[2])))
    assert _layout(module, "0", images, 4) == "BD"
    assert found[:3] == runs
    assert max(found) <= max(2, images)
