"""Task vectors: what they hold, and that injection leaves no trace."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interventions.task_vectors.checkpoint import Checkpoint
from lightsae.interventions.task_vectors.task_vector import TaskVector


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(11)
        )
        self.head = nn.Linear(4, 2)
        self.register_buffer("steps", torch.tensor(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


LAYERS = ["blocks.0", "blocks.1"]


@pytest.fixture
def pair() -> tuple[Net, Net]:
    torch.manual_seed(0)
    base, tuned = Net().eval(), Net().eval()
    for buffer in tuned.buffers():
        buffer.add_(1)
    return base, tuned


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def as_file(folder: Path, model: Net) -> Path:
    save_file(model.state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors"


SOURCES: list[Callable[[Path, Net], Checkpoint]] = [
    lambda _, model: model,
    lambda _, model: model.state_dict(),
    as_file,
    lambda _, model: {f"module.{name}": each for name, each in model.state_dict().items()},
    lambda _, model: nn.ModuleDict({"_orig_mod": model}),  # as of torch.compile
]


@pytest.mark.parametrize("source", SOURCES)
def test_a_vector_from_any_checkpoint_makes_the_model_the_tuned_one(
    source: Callable[[Path, Net], Checkpoint], pair: tuple[Net, Net], tmp_path: Path
) -> None:
    base, tuned = pair
    vector = TaskVector.between(base, source(tmp_path, tuned), LAYERS)
    other = TaskVector.between(source(tmp_path, base), tuned, LAYERS)
    assert other.changes.keys() == vector.changes.keys() == dict(base.named_parameters()).keys()
    before = state_of(base)
    with vector.injected(base):
        for name, parameter in base.named_parameters():
            torch.testing.assert_close(parameter, tuned.get_parameter(name))
        for name, buffer in base.named_buffers():
            assert torch.equal(buffer, before[name])
    assert same(base, before)


def test_buffers_in_two_state_dicts_are_not_injected(pair: tuple[Net, Net]) -> None:
    base, tuned = pair
    vector = TaskVector.between(base.state_dict(), tuned.state_dict(), LAYERS)
    assert "blocks.0.1.running_mean" in vector.changes
    assert "steps" not in vector.changes
    before = state_of(base)
    with vector.injected(base):
        assert torch.equal(base.blocks[0][1].running_mean, before["blocks.0.1.running_mean"])
        assert not torch.equal(base.blocks[0][0].weight, before["blocks.0.0.weight"])


def test_only_the_chosen_layer_changes(pair: tuple[Net, Net]) -> None:
    base, tuned = pair
    vector = TaskVector.between(base, tuned, LAYERS)
    before = state_of(base)
    with vector.injected(base, ["blocks.1"], scale=0.5):
        changed = {n for n, each in base.state_dict().items() if not torch.equal(each, before[n])}
        half = (before["blocks.1.0.weight"] + tuned.blocks[1][0].weight) / 2
        torch.testing.assert_close(base.blocks[1][0].weight, half)
    assert changed == {"blocks.1.0.weight", "blocks.1.0.bias"}  # not those of blocks.10


def test_bits_come_back_after_an_exception_and_when_nested(pair: tuple[Net, Net]) -> None:
    base, tuned = pair
    vector = TaskVector.between(base, tuned, LAYERS)
    before = state_of(base)
    with (
        pytest.raises(RuntimeError, match="inside"),
        vector.injected(base, scale=1e6),
        vector.injected(base, ["blocks.0"], scale=-3.0),
    ):
        raise RuntimeError("inside")
    assert same(base, before)


def test_a_failure_half_way_restores_what_was_written(
    pair: tuple[Net, Net], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tuned = pair
    vector = TaskVector.between(base, tuned, LAYERS)
    before, copies = state_of(base), []
    copy_ = Tensor.copy_

    def fails(self: Tensor, *given: Tensor) -> Tensor:
        copies.append(self)
        if len(copies) == 3:
            raise MemoryError
        return copy_(self, *given)

    monkeypatch.setattr(nn.Parameter, "copy_", fails)
    with pytest.raises(MemoryError), vector.injected(base):
        pass
    assert len(copies) > 3 and same(base, before)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "module"])
def test_a_wrapped_model_is_injected(wrapper: str, pair: tuple[Net, Net]) -> None:
    base, tuned = pair
    with TaskVector.between(base, tuned, LAYERS).injected(nn.ModuleDict({wrapper: base})):
        torch.testing.assert_close(base.head.weight, tuned.head.weight)
    wrapped = nn.ModuleDict({wrapper: base}), nn.ModuleDict({wrapper: tuned})
    with TaskVector.between(*wrapped, LAYERS).injected(base, ["blocks.1"]):
        torch.testing.assert_close(base.blocks[1][0].weight, tuned.blocks[1][0].weight)


def test_applied_is_a_copy(pair: tuple[Net, Net]) -> None:
    base, tuned = pair
    vector = TaskVector.between(base, tuned, LAYERS)
    before = state_of(base)
    for_good = vector.applied(base)
    assert same(base, before)
    assert type(for_good) is Net
    torch.testing.assert_close(for_good.head.weight, tuned.head.weight)
    assert {id(p) for p in for_good.parameters()}.isdisjoint(id(p) for p in base.parameters())


def test_low_precision_lands_on_the_tuned_bits(pair: tuple[Net, Net]) -> None:
    base, tuned = (model.bfloat16() for model in pair)
    vector = TaskVector.between(base, tuned, LAYERS)
    assert vector.changes["head.weight"].dtype == torch.float32
    with vector.injected(base):
        assert all(torch.equal(p, tuned.get_parameter(n)) for n, p in base.named_parameters())


def test_a_tied_weight_is_changed_once() -> None:
    def tied(value: float) -> nn.Module:
        model = nn.ModuleDict({"embed": nn.Linear(3, 3), "head": nn.Linear(3, 3)})
        nn.init.constant_(model["embed"].weight, value)
        model["head"].weight = model["embed"].weight
        return model

    base, tuned = tied(1.0), tied(4.0)
    for checkpoint in (tuned, tuned.state_dict()):
        vector = TaskVector.between(base, checkpoint, ["embed", "head"])
        assert vector.names() == ["embed.weight", "embed.bias", "head.bias"]
    from_states = TaskVector.between(base.state_dict(), tuned.state_dict(), ["embed", "head"])
    with from_states.injected(base):
        assert base["embed"].weight[0, 0] == 4


def test_numbers_under_two_names_of_a_state_dict_count_once() -> None:
    weight, other = torch.ones(3, 3), torch.full((3, 3), 2.0)
    vector = TaskVector.between(
        {"embed.weight": weight, "head.weight": weight},
        {"embed.weight": other, "head.weight": other.clone()},
        ["embed"],
    )
    assert vector.names() == ["embed.weight"] and vector.energy() == 9
    untied = {"embed.weight": other, "head.weight": 3 * other}
    for pair in ({"embed.weight": weight, "head.weight": weight}, untied), (
        untied, {"embed.weight": weight, "head.weight": weight}
    ):  # fmt: skip
        with pytest.raises(LightsaeError, match=r"^head\.weight and embed\.weight differ in"):
            TaskVector.between(*pair, ["embed"])


@pytest.mark.parametrize("names", [["head", "embed"], ["head"], ["embed"]])
def test_a_tied_weight_is_found_under_whichever_name_a_file_has_it(names: list[str]) -> None:
    model = nn.ModuleDict({"embed": nn.Linear(3, 3, bias=False)})
    model["head"] = nn.Linear(3, 3, bias=False)
    model["head"].weight = model["embed"].weight
    there = model["embed"].weight.detach() + 1
    tuned = {f"{name}.weight": there for name in names}
    for checkpoint in (model, model.state_dict()):
        vector = TaskVector.between(checkpoint, tuned, ["embed"])
        assert vector.names() == ["embed.weight"]
        torch.testing.assert_close(vector.changes["embed.weight"], torch.ones(3, 3))
    with vector.injected(model):
        torch.testing.assert_close(model["head"].weight.detach(), there)
    back = TaskVector.between(tuned, model, [names[0] if len(names) == 2 else "embed"])
    assert back.energy() == pytest.approx(9)


def test_different_changes_of_a_tied_weight_are_refused() -> None:
    state = {"embed.weight": torch.ones(3, 3), "head.weight": torch.ones(3, 3)}
    tuned = {"embed.weight": torch.ones(3, 3), "head.weight": torch.zeros(3, 3)}
    model = nn.ModuleDict({"embed": nn.Linear(3, 3, bias=False)})
    model["head"] = nn.Linear(3, 3, bias=False)
    model["head"].weight = model["embed"].weight
    before = state_of(model)
    vector = TaskVector.between(state, tuned, ["embed", "head"])
    with pytest.raises(LightsaeError, match=r"^head\.weight is tied to another weight"):
        vector.applied(model)
    assert same(model, before)


def test_buffers_that_a_model_does_not_save_may_be_in_a_file() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_buffer("angles", torch.ones(3), persistent=False)
    vector = TaskVector.between(model, model.state_dict() | {"angles": torch.ones(3)}, ["0"])
    assert vector.names() == ["0.weight", "0.bias"]


def test_what_is_no_tensor_in_a_state_dict_is_told() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    state = model.state_dict()
    message = r"^tuned: state_dict is of .*Dict, expected tensors.*: give tuned\['state_dict'\]$"
    with pytest.raises(LightsaeError, match=message):
        TaskVector.between(model, {"state_dict": state, "epoch": 3}, ["0"])
    with pytest.raises(LightsaeError, match=r"^base: epoch is of int, expected tensors by name$"):
        TaskVector.between({"epoch": 3} | state, model, ["0"])
    assert TaskVector.between(model, state | {"0._extra_state": b"fp8"}, ["0"]).energy() == 0


def test_one_name_is_not_taken_for_letters(pair: tuple[Net, Net]) -> None:
    layers = [str(place) for place in range(11)]
    base, tuned = (nn.Sequential(*model.blocks).eval() for model in pair)
    vector = TaskVector.between(base, tuned, layers)
    with pytest.raises(LightsaeError, match=r"^layers is '10', expected a list of names"):
        vector.applied(base, "10")
    with pytest.raises(LightsaeError, match="layers is 'head', expected a list"):
        TaskVector.between(*pair, "head")
    with pytest.raises(LightsaeError, match="scale is nan, expected a finite factor"):
        vector.applied(base, scale=float("nan"))


def test_energy_by_layer(pair: tuple[Net, Net]) -> None:
    base, tuned = pair
    vector = TaskVector.between(base, tuned, [f"blocks.{place}" for place in range(11)])
    linear = base.blocks[1][0], tuned.blocks[1][0]
    expected = sum(
        float((a - b).detach().double().square().sum())
        for a, b in zip(*(layer.parameters() for layer in linear), strict=True)
    )
    assert vector.energy(["blocks.1"]) == pytest.approx(expected)
    head = vector.energy() - vector.energy(list(vector.layers))
    outside = [
        float((p - tuned.head.get_parameter(n)).detach().square().sum())
        for n, p in base.head.named_parameters()
    ]
    assert head == pytest.approx(sum(outside), rel=1e-4)


def changed(model: Net, **tensors: Tensor | None) -> dict[str, Tensor]:
    state = dict(model.state_dict()) | {n.replace("__", "."): t for n, t in tensors.items()}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"head__weight": None}, r"^tuned lacks head.weight, expected weights of one model$"),
        ({"extra": torch.ones(1)}, r"^base lacks extra, expected weights of one model$"),
        (
            {"head__weight": torch.ones(3, 4)},
            r"^head.weight is \[3, 4\] in tuned, expected \[2, 4\] as in base$",
        ),
        (
            {"head__bias": torch.tensor([float("nan"), 1])},
            r"^head.bias holds NaN or inf, expected finite weights$",
        ),
    ],
)
def test_other_weights_are_refused(
    tensors: dict[str, Tensor | None], message: str, pair: tuple[Net, Net]
) -> None:
    base, tuned = pair
    with pytest.raises(LightsaeError, match=message):
        TaskVector.between(base, changed(tuned, **tensors), LAYERS)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers is empty"),
        (["blocks.99"], "layers: blocks.99 has no weights; the first is blocks.0.0.weight"),
        (["blocks", "blocks.1"], "blocks.1.0.weight lies in blocks and in blocks.1"),
    ],
)
def test_layers_that_are_none_are_refused(
    layers: list[str], message: str, pair: tuple[Net, Net]
) -> None:
    with pytest.raises(LightsaeError, match=message):
        TaskVector.between(*pair, layers)


def test_a_model_that_does_not_fit_is_refused_and_unchanged(pair: tuple[Net, Net]) -> None:
    base, tuned = pair
    vector = TaskVector.between(base, tuned, LAYERS)
    other = copy.deepcopy(base)
    other.head = nn.Linear(4, 3)
    before = state_of(other)
    with pytest.raises(LightsaeError, match=r"head.weight is \[3, 4\], expected \[2, 4\]"):
        vector.applied(other)
    other.head = nn.Identity()
    with pytest.raises(LightsaeError, match=r"the model lacks head\.weight"):
        vector.applied(other)
    with pytest.raises(
        LightsaeError, match=r"layer blocks\.5 is not in the task vector, which has"
    ):
        vector.applied(base, ["blocks.5"])
    assert torch.equal(other.blocks[0][0].weight, before["blocks.0.0.weight"])


def test_files_that_are_none_are_refused(pair: tuple[Net, Net], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(LightsaeError, match=r"^tuned: .*weights.safetensors is not there$"):
        TaskVector.between(pair[0], path, LAYERS)
    with pytest.raises(LightsaeError, match=r"^tuned: .* is a folder, expected a safetensors"):
        TaskVector.between(pair[0], tmp_path, LAYERS)
    path.write_bytes(b"no weights")
    with pytest.raises(LightsaeError, match=r"base: .*weights.safetensors cannot be read"):
        TaskVector.between(path, pair[0], LAYERS)
    with pytest.raises(LightsaeError, match="tuned has no floating-point weights"):
        TaskVector.between(pair[0], {"steps": torch.tensor(1)}, LAYERS)
