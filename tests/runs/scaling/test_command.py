"""`lightsae scaling` on the files of a real sweep, and on what is none."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lightsae.cli import main
from lightsae.errors import LightsaeError
from lightsae.planning.scaling import ScalingResult
from lightsae.runs.scaling.measured_runs import measured_runs

pytestmark = pytest.mark.slow


def altered(sweep: Path, folder: Path, change: Any) -> Path:
    """The files of the sweep that are read, with sweep.json changed."""
    (folder / "members").mkdir(parents=True)
    shutil.copy(sweep / "config.yaml", folder)
    for member in (sweep / "members").iterdir():
        for name in (member.name, member.name.replace("baseline", "OffSupportL1-0.1")):
            shutil.copytree(member / "sae", folder / "members" / name / "sae")
    found = json.loads((sweep / "sweep.json").read_text())
    change(found["stages"][0]["autoencoders"])
    (folder / "sweep.json").write_text(json.dumps(found))
    return folder


def test_a_sweep_gives_tables_a_file_and_a_figure(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["scaling", str(sweep), "--out", str(tmp_path / "law"), "--draws", "20"]
    assert main([*words, "--flops", "[1e9]"]) == 0
    text = capsys.readouterr().out
    assert "beta_n" in text and "Budgets" in text and "scaling.png" in text
    result = ScalingResult.load(tmp_path / "law")
    assert (result.d_in, result.decoded, len(result.runs)) == (6, 4, 8)
    assert sorted({each.d_sae for each in result.runs}) == [8, 12, 16, 24]
    assert {each.flops for each in result.budgets} == {1e9}
    assert (tmp_path / "law" / "scaling.png").read_bytes()[1:4] == b"PNG"


def test_losses_and_tokens_are_those_of_the_sweep(sweep: Path) -> None:
    found = measured_runs([sweep])
    saved = json.loads((sweep / "sweep.json").read_text())["stages"][0]["autoencoders"]
    r2 = {each["name"]: each["validation"]["r2"] for each in saved}
    steps = {each["step"] for each in saved}
    for run in found.runs:
        assert run.loss == 1 - r2[Path(run.name).name]
        assert run.tokens == 16 * steps.copy().pop()
    assert found.split == "validation"


def test_failed_members_are_left_out_and_named(sweep: Path, tmp_path: Path) -> None:
    def fail(members: list[dict[str, Any]]) -> None:
        members[0].update(state="failed", failure="loss is nan", validation={})

    found = measured_runs([altered(sweep, tmp_path / "sweep", fail)])
    assert len(found.runs) == 7
    assert any("loss is nan" in each.reason for each in found.left_out)


def test_regularizers_are_left_out(sweep: Path, tmp_path: Path) -> None:
    def regularize(members: list[dict[str, Any]]) -> None:
        found = members[0]
        found["name"] = found["name"].replace("baseline", "OffSupportL1-0.1")
        found.update(variant="OffSupportL1", weight=0.1)

    found = measured_runs([altered(sweep, tmp_path / "sweep", regularize)])
    assert len(found.runs) == 7
    assert [each.reason for each in found.left_out] == ["has the regularizer OffSupportL1"]


def test_of_several_learning_rates_the_best_counts(sweep: Path, tmp_path: Path) -> None:
    def add_rate(members: list[dict[str, Any]]) -> None:
        for each in list(members):
            worse = {**each, "lr": 0.5, "validation": {**each["validation"], "r2": -1.0}}
            head, _, seed = each["name"].partition("-lr")
            worse["name"] = f"{head}-lr0.5-seed{seed.partition('-seed')[2]}"
            members.append(worse)

    found = measured_runs([altered(sweep, tmp_path / "sweep", add_rate)])
    assert len(found.runs) == 8 and max(run.loss for run in found.runs) < 2
    assert any("lr 0.5 is not the best" in each.reason for each in found.left_out)
    assert any("of several lr" in note for note in found.notes)


def test_evaluated_runs_count_with_the_split_that_they_were_tested_on(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = sorted((sweep / "members").iterdir())
    for member in members[:2]:
        assert main(["test", "--run_dir", str(member)]) == 0
    found = measured_runs(members[:2])
    assert found.split == "test" and len(found.runs) == 2
    assert found.runs[0].tokens == measured_runs([sweep]).runs[0].tokens
    with pytest.raises(LightsaeError, match="split is test, that of the others validation"):
        measured_runs([sweep, members[0]])


def test_sweeps_of_other_settings_are_refused(sweep: Path, tmp_path: Path) -> None:
    other = altered(sweep, tmp_path / "other", lambda members: None)
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("batch_size: 16", "batch_size: 32"))
    with pytest.raises(LightsaeError, match=r"data\.batch_size is 32, that of .* 16"):
        measured_runs([sweep, other])


def test_what_is_no_result_is_refused(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "there is no such folder": [tmp_path / "nowhere"],
        "has neither sweep.json": [tmp_path],
        "is given twice": [sweep, sweep],
    }
    for told, folders in cases.items():
        assert main(["scaling", *map(str, folders)]) == 1
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["a", "--draws", "0"], ["a", "--flops", "[-1]"]])
def test_wrong_words_are_told_in_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scaling", *words]) == 2
    assert capsys.readouterr().err.startswith("lightsae scaling: error:")
