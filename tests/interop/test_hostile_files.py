"""Files made to hang, to fill the memory, or to raise what is no message."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightsae.errors import LightsaeError
from lightsae.interop import FORMATS, export_foreign, load_foreign
from lightsae.interop.files.shown_values import shown
from lightsae.sae import SparseAutoencoder

from .examples import example, write
from .ours import ours

NO_NUMBERS = {
    "complex": torch.tensor(1j),
    "infinite": torch.tensor(torch.inf),
    "too large": torch.tensor(1e300, dtype=torch.float64),
    "sparse": torch.tensor(1.0).to_sparse(),
    "meta": torch.empty((), device="meta"),
    "several": torch.ones(2),
}


def _nested(depth: int = 40) -> tuple[Any, ...]:
    """A few hundred bytes as a pickle, 2^40 words as text."""
    found: tuple[Any, ...] = ("a",)
    for _ in range(depth):
        found = (found, found)
    return found


@pytest.mark.parametrize("device", ["link", "pipe"])
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("saev", "openai")])
def test_a_configuration_that_never_ends_is_not_read(
    name: str, device: str, tmp_path: Path
) -> None:
    folder = write(FORMATS[name].files(example(name)), tmp_path)
    path = next(folder.glob("*.json"))
    path.unlink()
    if device == "link":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)
    for asked in ("auto", name):
        with pytest.raises(LightsaeError):
            load_foreign(folder, asked)


def test_a_value_is_shown_in_a_few_words_however_large_it_is() -> None:
    for value in (_nested(), [_nested()], {"k": _nested()}, 2**30_000, "x" * 10_000, _nested):
        assert len(shown(value)) <= 80
    assert shown({"k": [1, "two"]}) == "{'k': [1, 'two']}"


@pytest.mark.parametrize(
    "value", [_nested(), {"k": _nested()}, 2**30_000], ids=["pairs", "mapping", "number"]
)
def test_a_pickle_of_nested_pairs_is_one_line(
    value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings:
        pass

    Settings.__module__, Settings.__qualname__ = "vit_prisma.sae", "Settings"
    module = ModuleType("vit_prisma.sae")
    module.Settings = Settings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vit_prisma", ModuleType("vit_prisma"))
    monkeypatch.setitem(sys.modules, "vit_prisma.sae", module)
    folder = write(FORMATS["prisma"].files(example("prisma")), tmp_path / "sae")
    settings = json.loads((folder / "config.json").read_text())
    tensors = torch.load(folder / "weights.pt")
    for key in ("activation_fn_str", "activation_fn_kwargs", "d_in", "odd"):
        cfg = Settings()
        cfg.__dict__.update(settings | {key: value})
        torch.save({"cfg": cfg, "state_dict": tensors}, tmp_path / "whole.pt")
        if key == "odd":
            load_foreign(tmp_path / "whole.pt").save(tmp_path / "ours")
        else:
            with pytest.raises(LightsaeError, match=r"whole.pt: \S+ is "):
                load_foreign(tmp_path / "whole.pt")


def test_settings_of_openai_that_are_nested_are_one_line(tmp_path: Path) -> None:
    folder = write(FORMATS["openai"].files(example("openai")), tmp_path)
    path = folder / "autoencoder.pt"
    torch.save(torch.load(path) | {"activation": _nested()}, path)
    with pytest.raises(LightsaeError, match=r"'activation' is .*, expected str"):
        load_foreign(path, "openai")


@pytest.mark.parametrize("value", ["0x" + "f" * 6000, "1:" + "9:" * 3000 + "1"])
def test_numbers_of_yaml_that_have_thousands_of_digits_are_one_line(
    value: str, tmp_path: Path
) -> None:
    folder = write(FORMATS["visaebench"].files(example("visaebench")), tmp_path)
    (folder / "config.json").unlink()
    (folder / "config.yaml").write_text(f"activation: topk\nk: 2\nodd: {value}")
    with pytest.raises(LightsaeError, match=r"config.yaml is not YAML: .*digits"):
        load_foreign(folder, "visaebench")


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize("key", ["k", "threshold"])
def test_what_is_no_number_is_none_in_dictionary_learning(
    key: str, kind: str, tmp_path: Path
) -> None:
    export_foreign(ours("BatchTopK"), tmp_path / "sae", "dictionary_learning")
    path = tmp_path / "sae" / "ae.pt"
    torch.save(torch.load(path) | {key: NO_NUMBERS[kind]}, path)
    with pytest.raises(LightsaeError, match=r"ae.pt: .*(tensor 'k' is|was never learned)"):
        load_foreign(path)


@pytest.mark.parametrize("kind", ["complex", "infinite", "too large", "several"])
def test_what_is_no_number_is_none_in_openmoss(kind: str, tmp_path: Path) -> None:
    export_foreign(ours("TopK", "centre_scale"), tmp_path / "sae", "openmoss")
    path = tmp_path / "sae" / "sae_weights.safetensors"
    name = "dataset_average_activation_norm.unknown"
    save_file(load_file(path) | {name: NO_NUMBERS[kind]}, path)
    with pytest.raises(LightsaeError, match="is missing or no number above 0"):
        load_foreign(tmp_path / "sae")


@pytest.mark.parametrize("factor", [torch.tensor(1.0).to(torch.float8_e4m3fn), torch.tensor(1j)])
@pytest.mark.parametrize(
    ("name", "rule", "file"),
    [
        ("saelens", "TopK", "sae_weights.safetensors"),
        ("gemma_scope", "JumpReLU", "params.safetensors"),
    ],
)
def test_a_factor_of_another_dtype_is_one_line(
    name: str, rule: str, file: str, factor: torch.Tensor, tmp_path: Path
) -> None:
    export_foreign(ours(rule), tmp_path / "sae", name)
    path = tmp_path / "sae" / file
    save_file(load_file(path) | {"scaling_factor": factor}, path)
    with pytest.raises(LightsaeError, match="scaling_factor is not 1"):
        load_foreign(tmp_path / "sae")


def test_a_threshold_beyond_float32_is_the_largest_number(tmp_path: Path) -> None:
    export_foreign(ours("BatchTopK"), tmp_path / "sae", "visaebench")
    path = tmp_path / "sae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": None}))
    tensors = tmp_path / "sae" / "model.safetensors"
    huge = {"_running_threshold": torch.tensor(1e300, dtype=torch.float64)}
    save_file(load_file(tensors) | huge, tensors)
    sae = load_foreign(tmp_path / "sae")
    sae.save(tmp_path / "ours")
    largest = torch.finfo(torch.float32).max
    assert SparseAutoencoder.load(tmp_path / "ours").selection.threshold.max() == largest


PROVENANCES: list[dict[str, Any]] = [
    {},
    {"config": []},
    {"config": 3},
    {"hook": 5, "model": [1], "layer": {}, "config": {"schema": 5}},
    {"hook": "\ud800", "config": {"schema": 5, "cfg": 3, "metadata": 3, "trainer": []}},
]


@pytest.mark.parametrize("known", PROVENANCES, ids=str)
@pytest.mark.parametrize("name", FORMATS)
def test_provenance_of_any_kind_stops_no_export(
    name: str, known: dict[str, Any], tmp_path: Path
) -> None:
    for number, told in enumerate((known, known | {"format": name})):
        sae = example(name)
        sae.provenance = told
        export_foreign(sae, tmp_path / str(number), name)
        again = load_foreign(tmp_path / str(number))
        assert (again.d_in, again.d_sae) == (sae.d_in, sae.d_sae)
