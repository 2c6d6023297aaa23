"""`lightsae compare`: seeds of one setting beside each other, settings beside a baseline."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lightsae.cli import main
from lightsae.dictionaries import StabilityResult, measure_stability
from lightsae.runs.side_by_side.shared_rows import SharedRows
from lightsae.runs.side_by_side.trained_runs import read_autoencoder, read_trained


@pytest.fixture(scope="module")
def compared(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared")
    assert main(["compare", str(sweep), "--out", str(out), "--split", "train"]) == 0
    return out


def test_a_sweep_stands_for_its_members_in_one_pass_over_a_split(
    compared: Path, members: list[Path]
) -> None:
    found = StabilityResult.load(compared)
    saes = [read_autoencoder(folder) for folder in members]
    rows = SharedRows([read_trained(folder) for folder in members], "train")
    expected = measure_stability(saes, rows)
    assert found.names == ("seed 0", "seed 1", "seed 2") and found.rows == expected.rows
    for mine, theirs in zip(found.stability(), expected.stability(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
    for mine, theirs in zip(found.seeds, expected.seeds, strict=True):
        assert torch.equal(mine.firings, theirs.firings)


def test_it_leaves_a_json_and_figures(compared: Path) -> None:
    found = json.loads((compared / "comparison.json").read_text())
    assert found["comparisons"] == [] and found["notes"] == []
    assert found["stability"] == [{"setting": "baseline, d_sae 24, k 3", "folder": "."}]
    figures = {path.name for path in (compared / "figures").iterdir()}
    assert figures == {
        "stability-thresholds.png", "stability-frequency.png", "stability-shares.png"
    }  # fmt: skip


def test_seeds_that_were_evaluated_have_monosemanticity_beside(
    members: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copies = [tmp_path / folder.name for folder in members[:2]]
    for folder, copy in zip(members, copies, strict=False):
        shutil.copytree(folder, copy)
        assert main(["test", "--run_dir", str(copy), "--evaluation.probes=false"]) == 0
    capfd.readouterr()
    words = ["compare", *map(str, copies), "--thresholds", "[0.4, 0.9]", "--rows", "7"]
    assert main(words) == 0
    text = capfd.readouterr().out
    assert "ms, own_input" in text and "over 7 rows" in text
    assert "Stable: a latent that, at 0.9" in re.sub(r"\s+", " ", text)
    assert not list(tmp_path.glob("*.json"))


def test_several_settings_have_a_comparison_and_a_stability_each(
    sweep: Path, members: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    others = [tmp_path / folder.name for folder in members[:2]]
    for folder, other in zip(members, others, strict=False):
        shutil.copytree(folder, other)
        settings = yaml.safe_load((other / "config.yaml").read_text())
        settings["trainer"]["max_epochs"] = 9
        (other / "config.yaml").write_text(yaml.safe_dump(settings))
    words = ["compare", str(sweep), *map(str, others), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "settings are not compared" in re.sub(r"\s+", " ", capfd.readouterr().out)
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())["stability"]
    assert [each["setting"] for each in found] == [
        "baseline, d_sae 24, k 3, max_epochs 2", "baseline, d_sae 24, k 3, max_epochs 9"
    ]  # fmt: skip
    seeds = [len(StabilityResult.load(tmp_path / "out" / each["folder"]).seeds) for each in found]
    assert seeds == [3, 2]


def changed(folder: Path, copy: Path, **data: object) -> Path:
    """A run of another seed with some settings of its data changed."""
    shutil.copytree(folder, copy)
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    settings["data"]["init_args"] |= data
    (copy / "config.yaml").write_text(yaml.safe_dump(settings))
    return copy


def test_runs_that_do_not_belong_together_are_refused_in_one_line(
    members: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for words, told in (
        ([members[0]], "is one run, expected a baseline and others, or several seeds"),
        ([members[0], members[0]], "is given twice"),
        ([tmp_path / "gone"], "there is no such run folder"),
        ([members[0], changed(members[1], tmp_path / "a", path=str(tmp_path / "b"))],
         "no such folder of activation shards"),
        ([members[0], changed(members[1], tmp_path / "c", split_seed=5)], "evaluation.json"),
        ([*members[:2], "--thresholds", "[2]"], "thresholds are [2.0], expected some in [-1, 1]"),
    ):  # fmt: skip
        assert main(["compare", *map(str, words)]) == 1
        text = capfd.readouterr().err
        assert told in text and text.count("\n") == 1
    assert main(["compare", str(members[0]), str(members[1]), "--split", "half"]) == 2
