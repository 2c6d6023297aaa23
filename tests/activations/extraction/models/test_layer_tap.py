import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightsae.activations.extraction.models import LayerTap, ModelOptions, load_model
from lightsae.errors import LightsaeError
from tests.activations.stand_ins import TinyNet


def test_a_layer_is_tapped_and_the_rest_is_not_run() -> None:
    module = TinyNet()
    module.head = nn.Linear(999, 1)
    output = LayerTap(module, "tokens")(torch.zeros(2, 3, 16, 16))
    assert output.shape == (2, 5, 8)
    assert not module.tokens._forward_hooks


def test_a_wrong_layer_offers_the_closest() -> None:
    with pytest.raises(LightsaeError, match="TinyNet has no module 'token'; closest: 'tokens'"):
        LayerTap(TinyNet(), "token")


def test_a_layer_that_does_not_run_is_named() -> None:
    with pytest.raises(LightsaeError, match="'unused' is not used by"):
        LayerTap(TinyNet(), "unused")(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(2, 1, 16, 16), r"\[2, 1, 16, 16\] torch.float32: RuntimeError: .*channels"),
        (torch.zeros(2, 3, 4, 4), r"\[2, 3, 4, 4\] torch.float32: RuntimeError: .*size"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), r"\[2, 3, 16, 16\] torch.uint8: Runtime"),
    ],
    ids=["channels", "size", "uint8"],
)
def test_images_that_a_model_cannot_take_are_described(images: Tensor, says: str) -> None:
    module = TinyNet()
    start = "model: TinyNet, run up to layer 'tokens', cannot take a batch of images "
    with pytest.raises(LightsaeError, match=f"^{start}{says}") as caught:
        LayerTap(module, "tokens")(images)
    assert "\n" not in str(caught.value)
    assert not module.tokens._forward_hooks


def test_images_of_another_size_than_timms_are_described() -> None:
    arguments = {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}
    name = "vit_tiny_patch16_224"
    module = load_model(ModelOptions(name=name, pretrained=False, arguments=arguments))
    says = r"\[1, 3, 24, 24\] torch.float32: AssertionError: Input height \(24\) doesn't match"
    with pytest.raises(LightsaeError, match=f"VisionTransformer, .* {says}"):
        LayerTap(module, "blocks.0")(torch.zeros(1, 3, 24, 24))


class _Pair(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.inner = _Const(output)

    def forward(self, x: Tensor) -> object:
        return self.inner(x)


class _Const(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output


def test_of_several_outputs_the_first_is_taken() -> None:
    output = LayerTap(_Pair((torch.ones(2), None)), "inner")(torch.zeros(1))
    assert output.tolist() == [1, 1]


@dataclass
class _Output:
    loss: Tensor | None
    hidden: Tensor


@pytest.mark.parametrize(
    "output", [(None, torch.ones(2)), [torch.ones(2)], _Output(None, torch.ones(2))], ids=type
)
def test_of_what_holds_a_tensor_beside_other_things_it_is_taken(output: object) -> None:
    assert LayerTap(_Pair(output), "inner")(torch.zeros(1)).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (((torch.ones(2),),), "'inner' returns tuple, expected a tensor"),
        (_Output(None, None), "'inner' returns _Output, expected a tensor"),  # type: ignore[arg-type]
        (None, "'inner' returns NoneType, expected a tensor"),
        (torch.ones(2, 2).to_sparse(), "'inner' returns a sparse tensor, expected a dense one"),
        (torch.nested.as_nested_tensor([torch.ones(2)], layout=torch.jagged),
         "'inner' returns a nested tensor, expected a dense one"),
    ],
)  # fmt: skip
def test_an_output_that_is_no_dense_tensor_is_named(output: object, says: str) -> None:
    with pytest.raises(LightsaeError, match=f"^layer: {says}$"):
        LayerTap(_Pair(output), "inner")(torch.zeros(1))


def test_a_list_of_modules_does_not_run_itself() -> None:
    module = TinyNet()
    module.blocks = nn.ModuleList([nn.Identity()])
    says = "^layer: 'blocks' is a ModuleList, which does not run itself: name one of its modules$"
    with pytest.raises(LightsaeError, match=says):
        LayerTap(module, "blocks")


def test_a_program_of_torchscript_cannot_be_looked_into() -> None:
    module = _scripted(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    says = r"^model: \w+ is a program of TorchScript, whose layers cannot be watched; give the nn.M"
    with pytest.raises(LightsaeError, match=says):
        LayerTap(module, "0")


def _scripted(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, torch.zeros(2, 2))  # type: ignore[no-any-return]


def test_an_output_that_is_no_tensor_is_named() -> None:
    with pytest.raises(LightsaeError, match="'inner' returns dict, expected a tensor"):
        LayerTap(_Pair({"a": 1}), "inner")(torch.zeros(1))


class _Chain(nn.Module):
    """Three layers, of which the second changes the output of the first in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.ReLU(inplace=True)
        self.third = nn.Linear(3, 3)
        self.ran: list[str] = []
        for name, layer in self.named_children():
            layer.register_forward_pre_hook(lambda *_, name=name: self.ran.append(name))

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)))


@pytest.mark.parametrize("layers", [["first", "second"], ["second", "first"], ["first"]])
def test_several_layers_give_what_each_gives_alone(layers: Sequence[str]) -> None:
    module, x = _Chain(), torch.randn(4, 3)
    outputs = LayerTap(module, layers).all(x)
    assert module.ran == (["first", "second"] if len(layers) == 2 else ["first"])
    expected = {"first": module.first(x).detach(), "second": module.first(x).detach().relu()}
    assert len(outputs) == len(layers)
    for layer, output in zip(layers, outputs, strict=True):
        assert torch.equal(output, expected[layer])


def test_one_of_several_layers_that_does_not_run_is_named() -> None:
    with pytest.raises(LightsaeError, match="'unused' is not used by"):
        LayerTap(TinyNet(), ["tokens", "unused"]).all(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("layers", [[], ["first", "first"]])
def test_layers_are_some_and_each_named_once(layers: list[str]) -> None:
    with pytest.raises(LightsaeError, match=re.escape(f"layer is {layers}, expected different")):
        LayerTap(_Chain(), layers)


def test_a_layer_that_runs_twice_gives_its_first_output() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    module.append(module[0])
    x = torch.randn(3, 2)
    shared = LayerTap(module, ["0", "1"]).all(x)[0]
    assert torch.equal(shared, module[0](x).detach())


def _in_parallel(module: nn.Module, folder: Path) -> nn.Module:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
    return nn.parallel.DistributedDataParallel(module)


@pytest.mark.parametrize(
    "wrapped",
    ["compiled", "child", "child in place", "nested", "in place", "parallel", "both"],
)
@pytest.mark.parametrize("ran", [False, True], ids=["new", "ran"])
def test_a_wrapped_model_has_its_layers_under_their_own_names(
    tmp_path: Path, wrapped: str, ran: bool
) -> None:
    plain, x = TinyNet().eval(), torch.rand(2, 3, 16, 16)
    expected = LayerTap(plain, ["patches", "tokens"]).all(x)
    module: Any = plain
    if wrapped in ("child", "nested"):
        module.tokens = torch.compile(module.tokens, backend="eager")
    if wrapped == "child in place":
        module.tokens.compile(backend="eager")
    elif wrapped == "in place":
        module.compile(backend="eager")
    elif wrapped not in ("child", "parallel"):
        module = torch.compile(module, backend="eager")
    try:
        module = _in_parallel(module, tmp_path) if wrapped in ("parallel", "both") else module
        if ran:
            with torch.no_grad():
                module(x)
        before = dict(module.named_modules())
        tap = LayerTap(module, ["patches", "tokens"])
        for images in (1, 3, 1):
            tap.all(x[:1].expand(images, -1, -1, -1))
        found = tap.all(x)
        assert dict(module.named_modules()) == before
        assert tap.module.num_prefix_tokens == 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    for output, wanted in zip(found, expected, strict=True):
        assert torch.equal(output, wanted)


def test_a_layer_may_be_named_with_the_prefix_of_a_compiled_model() -> None:
    module: Any = torch.compile(TinyNet(), backend="eager")
    assert LayerTap(module, "_orig_mod.tokens").layers == ["tokens"]


class _Named(nn.Module):
    """Takes keyword arguments and returns a mapping, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _Sum()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> object:
        return self.inner(input_ids, attention_mask)


class _Sum(nn.Module):
    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, object]:
        return {"loss": None, "last_hidden_state": ids + mask}


def test_inputs_by_name_are_the_models_arguments() -> None:
    ids, mask = torch.tensor([[1, 2]]), torch.tensor([[1, 0]])
    output = LayerTap(_Named(), "inner")({"attention_mask": mask, "input_ids": ids})
    assert output.tolist() == [[2, 2]]


def test_inputs_by_name_that_a_model_cannot_take_are_described() -> None:
    says = r"a batch of ids \[1, 2\] torch.int64: TypeError: .*unexpected keyword argument 'ids'"
    with pytest.raises(LightsaeError, match=says):
        LayerTap(_Named(), "inner")({"ids": torch.ones(1, 2, dtype=torch.int64)})
