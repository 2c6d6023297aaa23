"""The files of a `StabilityResult`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from safetensors.torch import load_file, save_file

from lightsae.dictionaries import StabilityResult, measure_stability
from lightsae.dictionaries.stability.result_files import JSON, TENSORS
from lightsae.errors import LightsaeError

from .test_measure import rows, seeds


@pytest.fixture(scope="module")
def result() -> StabilityResult:
    ms = [torch.rand(24).where(torch.arange(24) > 3, torch.nan)] * 2
    return measure_stability(seeds(2), [rows()], names=["a", "b"], columns={"ms": ms}, draws=4)


def test_what_is_saved_comes_back(result: StabilityResult, tmp_path: Path) -> None:
    result.save(tmp_path / "made")
    found = StabilityResult.load(tmp_path / "made")
    for group in ("unstable", "weighted"):
        assert repr(getattr(found, group)) == repr(getattr(result, group))
    assert repr(found.reconstruction) == repr(result.reconstruction)
    for name in ("names", "d_in", "rows", "thresholds", "cut", "baselines", "shuffled"):
        assert getattr(found, name) == getattr(result, name)
    for one, other in zip(found.seeds, result.seeds, strict=True):
        assert torch.equal(one.firings, other.firings) and torch.equal(one.stable, other.stable)
        assert set(one.similarity) == {"cosine", "iou", "correlation"}
        for name, values in (*one.similarity.items(), ("ms", one.columns["ms"])):
            expected = {**other.similarity, **other.columns}[name]
            torch.testing.assert_close(values, expected, rtol=0, atol=0, equal_nan=True)
    assert found.measures == result.measures == ("cosine", "iou", "correlation")
    assert found.summary() == result.summary()


def test_the_json_says_what_was_found(result: StabilityResult, tmp_path: Path) -> None:
    result.save(tmp_path)
    summary = json.loads((tmp_path / JSON).read_text())["summary"]
    assert summary == json.loads(json.dumps(result.summary()))
    assert summary["latents"]["d_sae"] == [24, 24]
    assert summary["mean_stability"]["cosine"][0]["mean"] == result.mean_stability()[0].mean
    assert {file.name for file in tmp_path.iterdir()} == {JSON, TENSORS}


def damaged(result: StabilityResult, folder: Path, *keys: Any, value: Any = None) -> None:
    """Save the result and change one value of the JSON, or with a single key drop it."""
    result.save(folder)
    content = json.loads((folder / JSON).read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    (folder / JSON).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (["format"], 2, "no stability of format 1"),
        (["rows"], None, "rows is missing"),
        (["rows"], "many", "rows is 'many', expected int"),
        (["rows"], True, "rows is True, expected int"),
        (["names"], "ab", "names is 'ab', expected tuple"),
        (["names"], ["a"], "names holds 1"),
        (["thresholds"], [0.5, 0.6, 0.7, 0.8, 9.0], "thresholds are [0.5, 0.6, 0.7, 0.8, 9.0],"),
        (["more"], 1, "more is unknown"),
        (["cut", "share"], [0.5], "cut.share is [0.5], expected float"),
        (["baselines", "uniform", "mean"], [0.5], "baselines.uniform.mean holds 1 items, expected"),
        (["shuffled", "iou", "low"], [], "shuffled.iou.low holds 0 items, expected 5"),
        (["reconstruction"], [], "reconstruction holds 0 items, expected 2"),
        (["reconstruction", 0, "latents"], [1], "reconstruction.0.latents has 1 items, expected 2"),
        (["weighted", "counts"], [1, 2, 3], "weighted.counts holds 3 items, expected 2"),
        (["unstable", "pairs", 0, "seeds"], [0, 7], "unstable.pairs names a seed beyond 1"),
        (["unstable", "energy"], 10**400, "unstable.energy is beyond float64"),
        (["xxh3"], "0", "not of one result, or were altered"),
    ],
)
def test_a_damaged_json_is_refused_in_a_line(
    result: StabilityResult, tmp_path: Path, keys: list[Any], value: Any, told: str
) -> None:
    damaged(result, tmp_path, *keys, value=value)
    with pytest.raises(LightsaeError) as error:
        StabilityResult.load(tmp_path)
    assert told in str(error.value) and JSON in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "tensor", "told"),
    [
        ("0/firings", None, "of seed 0, firings, stable or similarity/cosine is missing"),
        ("1/similarity/cosine", None, "of seed 1, firings, stable or similarity/cosine is"),
        ("0/stable", torch.ones(24), "0/stable is [24] torch.float32, expected [24] torch.bool"),
        ("1/columns/ms", torch.ones(3).double(), "1/columns/ms is [3] torch.float64, expected"),
        ("2/firings", torch.ones(24), "holds '2/firings', expected latents of 2 seeds"),
        ("0/else/cosine", torch.ones(24), "holds '0/else/cosine', expected latents of 2 seeds"),
        ("0/similarity/else", torch.ones(24, 1).double(), "0/similarity/else is unknown"),
        ("0/columns/ms", None, "seeds differ in columns, expected the same of each"),
        ("firings", torch.ones(24), "holds 'firings', expected latents of 2 seeds"),
    ],
)
def test_damaged_tensors_are_refused_in_a_line(
    result: StabilityResult, tmp_path: Path, name: str, tensor: torch.Tensor | None, told: str
) -> None:
    result.save(tmp_path)
    held = load_file(tmp_path / TENSORS)
    held.pop(name, None)
    save_file(held if tensor is None else {**held, name: tensor}, tmp_path / TENSORS)
    content = json.loads((tmp_path / JSON).read_text())
    content["xxh3"] = xxhash.xxh3_64_hexdigest((tmp_path / TENSORS).read_bytes())
    (tmp_path / JSON).write_text(json.dumps(content))
    with pytest.raises(LightsaeError) as error:
        StabilityResult.load(tmp_path)
    assert told in str(error.value) and TENSORS in str(error.value)


def test_files_that_are_none_of_it_are_refused(result: StabilityResult, tmp_path: Path) -> None:
    (tmp_path / JSON).write_text("[" * 100_000)
    with pytest.raises(LightsaeError, match=r"stability.json is not JSON"):
        StabilityResult.load(tmp_path)
    (tmp_path / JSON).write_text("[]")
    with pytest.raises(LightsaeError, match=r"is no stability of format 1"):
        StabilityResult.load(tmp_path)
    result.save(tmp_path)
    (tmp_path / TENSORS).unlink()
    with pytest.raises(LightsaeError, match=r"stability.safetensors cannot be read: No such file"):
        StabilityResult.load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(LightsaeError, match=f"file/{TENSORS} cannot be written: File exists"):
        result.save(tmp_path / "file")
