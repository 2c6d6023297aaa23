"""`lightsae steer` on the command line."""

import json
from pathlib import Path

import pytest
import yaml

from lightsae.cli import main

TASK = "lightsae.interventions.examples.planted_steering.PlantedTask"


def configuration(path: Path, **changes: object) -> Path:
    given = {
        "task": {"class_path": TASK, "init_args": {"samples": 120}},
        "strengths": [1.0], "counts": [1], "controls": ["random", "raw"], "n_random": 1,
        "bootstrap": 100,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(given | changes))
    return path


def test_it_steers_and_leaves_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = configuration(tmp_path / "a.yaml"), tmp_path / "out"
    words = ["steer", "--config", str(config), "--out", str(out)]
    assert main(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Steering: alarm shall fall" in printed
    assert "Works: alarm 0.5 to 0 (-0.5, " in printed
    assert {path.name for path in (out / "figures").iterdir()} == {
        "steering-front.png", "steering-target.png", "steering-damage.png"
    }  # fmt: skip
    assert "Works: alarm" in (out / "report.html").read_text()
    found = json.loads((out / "steering.json").read_text())
    assert found["settings"]["task"]["class_path"] == TASK
    assert found["settings"]["task"]["init_args"] == {"samples": 120, "seed": 0, "works": True}
    assert main([*words, "--seed", "1"]) == 1
    assert "options.seed was 0, is 1" in capsys.readouterr().err


def test_a_class_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_steering_task.py").write_text(
        f"from {TASK.rpartition('.')[0]} import PlantedTask\n\n\n"
        "class Mine(PlantedTask):\n    def __init__(self) -> None:\n"
        "        super().__init__(works=False)\n"
    )
    config = configuration(tmp_path / "a.yaml", task={"class_path": "own_steering_task.Mine"})
    assert main(["steer", "--config", str(config), "--out", "out"]) == 0
    assert json.loads((tmp_path / "out" / "steering.json").read_text())["outcome"] == "nothing"


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"strengths": []}, 1, "strengths is empty, expected at least one"),
        ({"counts": [99]}, 1, "counts: 99 is more than d_sae = 24 of layer 'layer'"),
        ({"layers": ["other"]}, 1, "layers: 'other' has no autoencoder, there are layer"),
        ({"kind": "more"}, 2, "kind"),
        ({"strengthss": [1.0]}, 2, "strengthss"),
        ({"task": {"class_path": "nowhere.Task"}}, 2, "nowhere"),
        ({"task": {"class_path": TASK, "init_args": {"sample": 3}}}, 2, "sample"),
        ({"task": {"class_path": "lightsae.sae.TopK"}}, 2, "TopK"),
    ],
    ids=["strengths", "counts", "layers", "kind", "key", "module", "argument", "class"],
)
def test_what_is_wrong_is_told_in_one_line(
    changes: dict[str, object],
    status: int,
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = configuration(tmp_path / "a.yaml", **changes)
    assert main(["steer", "--config", str(config), "--out", str(tmp_path / "out")]) == status
    errors = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_without_a_task_or_a_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = configuration(tmp_path / "a.yaml")
    assert main(["steer", "--config", str(config)]) == 2
    assert "required: out" in capfd.readouterr().err
    assert main(["steer", "--out", str(tmp_path / "out")]) == 2
    assert "required: strengths, counts, task" in capfd.readouterr().err


def test_a_stopped_command_says_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from lightsae.interventions.examples.planted_steering import PlantedTask

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PlantedTask, "measure", stopped)
    config = configuration(tmp_path / "a.yaml")
    assert main(["steer", "--config", str(config), "--out", str(tmp_path / "out")]) == 130
    assert "lightsae steer: stopped; the same command goes on" in capfd.readouterr().err
