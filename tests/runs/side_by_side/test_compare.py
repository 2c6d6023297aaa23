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
from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun
from lightsae.runs.side_by_side.compared import stability_folders
from lightsae.runs.side_by_side.run_stability import latent_columns
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


def test_a_report_of_several_settings_shows_the_stability_of_each(
    sweep: Path, members: list[Path], tmp_path: Path
) -> None:
    others = [changed(folder, tmp_path / folder.name, batch_size=8) for folder in members[:2]]
    out = tmp_path / "out"
    assert main(["compare", str(sweep), *map(str, others), "--out", str(out)]) == 0
    folders = stability_folders(out)
    assert len(folders) == 2
    StabilityResult.load(folders[0]).save(out)  # of an earlier comparison of one setting
    assert main(["report", str(out), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert all(f"<h3>{folder.name}</h3>" in page for folder in folders)
    assert page.count("<h3>baseline") == 2


@pytest.mark.parametrize("folder", ["../a", "/etc", "..", "a/b"])
def test_a_comparison_names_no_folder_but_its_own(tmp_path: Path, folder: str) -> None:
    told = {"stability": [{"setting": "a", "folder": folder}]}
    (tmp_path / "comparison.json").write_text(json.dumps(told))
    with pytest.raises(LightsaeError, match="is no folder in"):
        stability_folders(tmp_path)
    (tmp_path / "comparison.json").write_text("[]")
    with pytest.raises(LightsaeError, match=r"comparison\.json is no comparison"):
        stability_folders(tmp_path)


def test_runs_that_are_not_independent_are_refused(
    sweep: Path, members: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(members[0], tmp_path / "copy")
    assert main(["compare", str(sweep), str(tmp_path / "copy")]) == 1
    assert "have one setting and one seed, 0" in capfd.readouterr().err
    for place, folder in enumerate(members[:2]):
        shutil.copytree(folder, tmp_path / str(place))
        sae = read_autoencoder(folder)
        sae.provenance = {"made_by": {"xxh3": ["a", f"b{place}"]}}
        sae.save(tmp_path / str(place) / "sae")
    assert main(["compare", str(tmp_path / "0"), str(tmp_path / "1")]) == 1
    assert "made of an autoencoder that both started from" in capfd.readouterr().err


def test_figures_of_another_split_say_so_and_of_several_are_left_out() -> None:
    def run(split: str) -> EvaluatedRun:
        latents = {"ms/cnn": torch.zeros(2), "purity_weighted": torch.zeros(2)}
        result = EvaluationResult({"d_sae": 2, "split": split}, latents=latents)
        return EvaluatedRun(folder=Path("a"), result=result)

    names = list(latent_columns([run("validation")] * 2, [2, 2], "test"))
    assert names == ["ms, cnn, validation", "purity, validation"]
    assert list(latent_columns([run("test")] * 2, [2, 2], "test")) == ["ms, cnn", "purity"]
    assert latent_columns([run("test"), run("validation")], [2, 2], "test") == {}


def test_a_run_is_no_folder_for_a_comparison(
    members: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", *map(str, members), "--out", str(members[0])]
    assert main(words) == 1
    assert "holds a run, expected another folder for a comparison" in capfd.readouterr().err


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
