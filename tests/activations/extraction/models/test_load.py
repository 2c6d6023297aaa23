from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightsae.activations.extraction.models import ModelOptions, load_model, weights_hash
from lightsae.errors import LightsaeError
from tests.activations.stand_ins import TinyNet

STAND_INS = "tests.activations.stand_ins"
TINY = f"{STAND_INS}.TinyNet"
VIT = {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}


def test_a_timm_model_is_frozen_and_always_the_same() -> None:
    options = ModelOptions(name="vit_tiny_patch16_224", pretrained=False, arguments=VIT)
    state = torch.get_rng_state()
    first, second = load_model(options), load_model(options)
    assert torch.equal(state, torch.get_rng_state())
    assert not first.training
    assert not any(p.requires_grad for p in first.parameters())
    assert weights_hash(first) == weights_hash(second)


def test_any_module_by_class_path() -> None:
    module = load_model(ModelOptions(module=TINY, arguments={"width": 4}))
    assert isinstance(module, TinyNet)
    assert module.head.in_features == 4


def test_the_users_module_is_left_as_it_is() -> None:
    module = load_model(ModelOptions(module="torch.nn.Identity", prefix_tokens=3))
    assert not hasattr(module, "num_prefix_tokens")


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "nested.pt", "old.pt"])
def test_weights_come_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    source = TinyNet()
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(source.state_dict(), path)
    else:
        state = source.state_dict()
        nested = {"state_dict": state} if "nested" in suffix else state
        torch.save(nested, path, _use_new_zipfile_serialization="old" not in suffix)
    module = load_model(ModelOptions(module=TINY, weights=str(path)))
    assert weights_hash(module) == weights_hash(source)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_a_file_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"head.weight": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(LightsaeError, match=r"evil.pt cannot be read, expected plain tensors: "):
        load_model(ModelOptions(module=TINY, weights=str(tmp_path / "evil.pt")))
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("data", [b"", b"no weights"], ids=["empty", "text"])
def test_a_file_that_is_no_weights_is_named_without_advice_to_run_it(
    tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    says = f"^model.weights: {tmp_path}/{name} cannot be read, expected plain tensors: "
    with pytest.raises(LightsaeError, match=says) as caught:
        load_model(ModelOptions(module=TINY, weights=str(tmp_path / name)))
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("meta", r"^model.module .*unusable: its parameter 0.weight has no values \(meta\)$"),
        ("lazy", r"^model.module .*unusable: its parameter 1.weight has no values \(lazy\)$"),
        ("export", r"^model.module .*unusable: cannot be put into evaluation mode: NotImplemented"),
    ],
)
def test_a_module_that_cannot_be_run_is_named(kind: str, says: str) -> None:
    with pytest.raises(LightsaeError, match=says):
        load_model(ModelOptions(module=f"{STAND_INS}.unusable", arguments={"kind": kind}))


class _Packed(nn.Module):
    def get_extra_state(self) -> tuple[str, int]:
        return "packed", 1


def test_a_state_that_is_no_tensor_is_named() -> None:
    with pytest.raises(
        LightsaeError, match=r"^model: its state _extra_state is a tuple, expected a"
    ):
        weights_hash(_Packed())


def test_weights_that_are_no_state_dict_are_told(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "w.pt")
    with pytest.raises(LightsaeError, match=r"w.pt holds a Tensor, expected a state_dict$"):
        load_model(ModelOptions(module=TINY, weights=str(tmp_path / "w.pt")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ModelOptions(), "give either name"),
        (ModelOptions(name="a", module="b.c"), "give either name"),
        (ModelOptions(name="vit_smal_patch16_224"), "timm has no .*; closest: 'vit_small_patch16_"),
        (
            ModelOptions(name="vit_tiny_patch16_224", pretrained=False, arguments={"nope": 1}),
            "vit_tiny_patch16_224: cannot be built: .*nope",
        ),
        (ModelOptions(module="no.such.Thing"), "cannot import 'no.such.Thing'"),
        (ModelOptions(module="Thing"), "cannot import 'Thing'"),
        (ModelOptions(module=TINY, arguments={"nope": 1}), "TinyNet: cannot be built: .*nope"),
        (
            ModelOptions(module=f"{STAND_INS}.FailsToBuild"),
            "model.module .*stand_ins.FailsToBuild: cannot be built: ZeroDivisionError: no such",
        ),
        (ModelOptions(module="builtins.dict"), "made no nn.Module"),
        (ModelOptions(module=TINY, weights="no.pt"), "there is no file no.pt"),
    ],
)
def test_what_is_wrong_with_a_model_is_named(options: ModelOptions, message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        load_model(options)


def test_code_that_fails_while_it_is_imported_is_named_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code_out_of_order.py").write_text("raise RuntimeError('out of order')")
    monkeypatch.syspath_prepend(tmp_path)
    message = "^model.module: cannot import 'code_out_of_order.Net': RuntimeError: out of order$"
    with pytest.raises(LightsaeError, match=message):
        load_model(ModelOptions(module="code_out_of_order.Net"))


def test_prefix_tokens_are_not_negative() -> None:
    with pytest.raises(LightsaeError, match=r"model.prefix_tokens is -1, expected at least 0"):
        ModelOptions(module=TINY, prefix_tokens=-1)


def test_weights_that_were_trained_in_parallel_lose_their_prefix(tmp_path: Path) -> None:
    source = TinyNet()
    state = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    module = load_model(ModelOptions(module=TINY, weights=str(tmp_path / "w.pt")))
    assert weights_hash(module) == weights_hash(source)


@pytest.mark.parametrize("wrapped", ["whole", "child", "parallel"])
def test_weights_of_a_compiled_model_lose_its_prefixes(tmp_path: Path, wrapped: str) -> None:
    source, trained = TinyNet(), TinyNet()
    trained.load_state_dict(source.state_dict())
    if wrapped == "child":
        trained.head = torch.compile(trained.head, backend="eager")  # type: ignore[assignment]
    else:
        trained = torch.compile(trained, backend="eager")  # type: ignore[assignment]
    state = (nn.DataParallel(trained) if wrapped == "parallel" else trained).state_dict()
    assert any("_orig_mod." in name for name in state)
    torch.save(state, tmp_path / "w.pt")
    module = load_model(ModelOptions(module=TINY, weights=str(tmp_path / "w.pt")))
    assert weights_hash(module) == weights_hash(source)


def test_a_model_that_is_compiled_takes_weights_of_one_that_is_not(tmp_path: Path) -> None:
    source = TinyNet()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    options = ModelOptions(module=f"{STAND_INS}.compiled_net", weights=str(tmp_path / "w.pt"))
    assert weights_hash(load_model(options)) == weights_hash(source)


def test_a_library_that_there_is_not_is_named() -> None:
    with pytest.raises(LightsaeError, match=r"model.library is 'keras', expected one of timm, ope"):
        ModelOptions(name="vit", library="keras")  # type: ignore[arg-type]


def test_a_manifest_tells_models_of_one_name_apart() -> None:
    assert ModelOptions(name="resnet18").title == "resnet18"
    assert ModelOptions(name="resnet18", library="torchvision").title == "torchvision:resnet18"
    assert ModelOptions(module=TINY).title == TINY


def test_weights_of_another_model_do_not_fit(tmp_path: Path) -> None:
    save_file(TinyNet(width=4).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(LightsaeError, match=r"w.safetensors does not fit TinyNet: .*size mismatch"):
        load_model(ModelOptions(module=TINY, weights=str(tmp_path / "w.safetensors")))
