"""One pass over the images serves several layers, each with a folder of its own."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lightsae.activations import DataOptions, LayerTap, ModelOptions, extract
from lightsae.errors import LightsaeError
from tests.activations.extraction.extractions import contents

STAND_INS = "tests.activations.stand_ins"
# Of an image they give 4, 5 and 1 rows, so their shards end behind different images.
LAYERS = ["patches", "tokens", "head"]


def _extract(out: Path, layer: list[str] | str, **options: Any) -> list[Any]:
    return extract(
        ModelOptions(module=f"{STAND_INS}.TinyNet"),
        DataOptions(dataset=f"{STAND_INS}.Noise", arguments={"bad": [11]}),
        layer=layer,
        out=str(out),
        **{"tokens": "all", "dtype": "float32", "batch_size": 6, "rows_per_shard": 50, **options},
        on_error="skip",
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of those that three runs of one layer each wrote."""
    folder = tmp_path_factory.mktemp("alone")
    for layer in LAYERS:
        _extract(folder / layer, layer)
    return folder


def _assert_same(found: Path, expected: Path) -> None:
    assert sorted(path.name for path in found.iterdir()) == sorted(LAYERS)
    for layer in LAYERS:
        assert contents(found / layer) == contents(expected / layer)


def test_each_folder_is_what_its_layer_alone_would_give(tmp_path: Path, alone: Path) -> None:
    manifests = _extract(tmp_path, LAYERS)
    assert [manifest.layer for manifest in manifests] == LAYERS
    assert [manifest.rows for manifest in manifests] == [39 * 4, 39 * 5, 39]
    assert [manifest.d_in for manifest in manifests] == [8, 8, 2]
    _assert_same(tmp_path, alone)


# In which the layout of the layers is found.
FIRST = [3, 3, 2]


def test_the_model_runs_once_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = _count_passes(monkeypatch, 1000)
    _extract(tmp_path, LAYERS)
    assert passes[:3] == FIRST
    assert len(passes[3:]) == 7
    assert sum(passes[3:]) == 39


def _count_passes(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    passes: list[int] = []
    real = LayerTap.all

    def counted(tap: LayerTap, inputs: Any) -> Any:
        if len(passes) == most:
            raise KeyboardInterrupt
        passes.append(len(inputs))
        return real(tap, inputs)

    monkeypatch.setattr(LayerTap, "all", counted)
    return passes


@pytest.mark.parametrize("passes", range(10))
def test_an_interrupted_run_goes_on_with_each_layer_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Path, passes: int
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        _count_passes(patch, passes)
        _extract(tmp_path, LAYERS)
    _extract(tmp_path, LAYERS)
    _assert_same(tmp_path, alone)


def test_layers_that_are_complete_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Path
) -> None:
    _extract(tmp_path, LAYERS[1:])
    before = (tmp_path / "head" / "manifest.json").stat().st_mtime_ns
    taps: list[list[str]] = []
    real = LayerTap.all
    monkeypatch.setattr(
        LayerTap, "all", lambda tap, inputs: [taps.append(tap.layers), real(tap, inputs)][1]
    )
    _extract(tmp_path, LAYERS)
    assert taps == [["patches"]] * (len(FIRST) + 7)
    assert (tmp_path / "head" / "manifest.json").stat().st_mtime_ns == before
    _assert_same(tmp_path, alone)


def test_an_image_that_overflows_in_one_layer_has_rows_of_the_others(tmp_path: Path) -> None:
    data = DataOptions(dataset=f"{STAND_INS}.Noise", arguments={"large": [7]})
    model = ModelOptions(module=f"{STAND_INS}.Amplified")
    options: dict[str, Any] = {"tokens": "pooled", "on_error": "skip"}
    both = extract(model, data, ["0", "1"], str(tmp_path), **options)
    assert [manifest.rows for manifest in both] == [40, 39]
    assert [len(manifest.progress["skipped"]) for manifest in both] == [0, 1]


def test_a_budget_is_for_all_layers(tmp_path: Path) -> None:
    _extract(tmp_path / "free", LAYERS)
    manifests = [
        json.loads((tmp_path / "free" / layer / "manifest.json").read_text()) for layer in LAYERS
    ]
    needed = sum(4 * manifest["rows"] * manifest["d_in"] for manifest in manifests)
    with pytest.raises(LightsaeError, match=r"max_bytes is .* would take about"):
        _extract(tmp_path / "out", LAYERS, max_bytes=needed)
    assert not (tmp_path / "out").exists()


def test_shards_are_not_put_beside_folders_of_them(tmp_path: Path) -> None:
    _extract(tmp_path, "tokens")
    says = f"{tmp_path}: holds shards, expected a folder for folders of them"
    with pytest.raises(LightsaeError, match=f"^{re.escape(says)}$"):
        _extract(tmp_path, LAYERS)


def test_a_folder_of_other_settings_is_named_before_the_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _extract(tmp_path / "head", "head", seed=1)
    passes = _count_passes(monkeypatch, 0)
    with pytest.raises(LightsaeError, match=rf"{tmp_path}/head: .*seed"):
        _extract(tmp_path, LAYERS)
    assert passes == []
