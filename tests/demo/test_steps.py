"""The demo: the package's commands in a row, shown and run, on small stand-ins for its networks."""

import contextlib
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from lightsae.activations import ShardSet
from lightsae.activations.sources import digits
from lightsae.cli import main
from lightsae.demo import steps
from lightsae.evaluation import EvaluationResult
from lightsae.runs.sweep import SweepFile

CONFIG = Path(__file__).parents[2] / "configs" / "sweep-digits.yaml"
COPIES = 2
SMALLER = {
    "max_epochs: 30": "max_epochs: 1",
    "check_val_every_n_epoch: 10": "check_val_every_n_epoch: 1",
    "weight: [0.01, 0.03, 0.1, 0.3]": "weight: [0.001, 0.5]",
    "d_sae: 128": "d_sae: 32",
    "k: 16": "k: 4",
    "warmup_steps: 50": "warmup_steps: 1",
    "decay_steps: 200": "decay_steps: 2",
}


class Finished(NamedTuple):
    """A demo that ran to its end."""

    folder: Path
    lines: list[str]

    @property
    def commands(self) -> list[list[str]]:
        """The commands that were shown."""
        return [shlex.split(line) for line in self.lines if line.startswith("  lightsae ")]


def evaluated(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("sweep/members/*/evaluation.json"))


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Untrained networks, fewer images, a smaller grid; everything else is the demo's own."""
    text = CONFIG.read_text()
    for line, instead in SMALLER.items():
        assert text.count(line) == 1, line
        text = text.replace(line, instead)
    config = tmp_path_factory.mktemp("config") / "sweep.yaml"
    config.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "_train", lambda module, training: None)
        patch.setattr(steps, "_COPIES", COPIES)
        patch.setattr(steps, "_CONFIG", config)
        yield


@pytest.fixture(scope="module")
def finished(smaller: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("demo") / "a run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        lines = said(patch, lambda: main(["demo", "--run_dir", str(folder), "--seeds", "2"]))
    return Finished(folder, lines)


def said(patch: pytest.MonkeyPatch, run: Callable[[], int]) -> list[str]:
    """Lines on standard output of a command that succeeds."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run() == 0
    return out.getvalue().splitlines()


@pytest.mark.slow
def test_it_ends_by_naming_the_report(finished: Finished) -> None:
    report = finished.folder / "report.html"
    assert finished.lines[-1] == str(report)
    assert "</html>" in report.read_text()


@pytest.mark.slow
def test_every_step_shows_its_command(finished: Finished) -> None:
    words = [command[1] for command in finished.commands]
    assert words == ["extract", "extract", "sweep", "test", "report"]


@pytest.mark.slow
def test_the_table_has_both_regularizers_beside_the_baseline(finished: Finished) -> None:
    text = "\n".join(finished.lines)
    assert "Test split, means over 2 seeds" in text
    for name in ("R²", "MS in digits-cnn", "silent as 0", "scored", "paired MS in digits-cnn"):
        assert re.search(rf"^ *{re.escape(name)} .*\d", text, re.M), name
    assert "baseline" in text and "OffSupportL1" in text and "L1L2Ratio" in text


@pytest.mark.slow
def test_the_baseline_and_the_chosen_lambdas_of_all_seeds_are_evaluated(finished: Finished) -> None:
    file = SweepFile(finished.folder / "sweep" / "sweep.json")
    chosen = {choice.variant: choice.weight for _, choice in file.choices}
    assert len(file.stages["grid"]) == 2 * (1 + 2 * 2)
    about = [EvaluationResult.load(run).about for run in evaluated(finished.folder)]
    found = {(json.dumps(each["regularizer"]), each["seed"]) for each in about}
    wanted = [None, *({"name": name, "weight": weight} for name, weight in chosen.items())]
    assert found == {(json.dumps(each), seed) for each in wanted for seed in (0, 1)}


@pytest.mark.slow
def test_the_command_of_the_evaluation_gives_the_same_figures(
    finished: Finished, tmp_path: Path
) -> None:
    words = finished.commands[3][1:]
    run = Path(words[words.index("--run_dir") + 1])
    kept = EvaluationResult.load(run)
    own = shutil.copytree(run, tmp_path / "run")
    words[words.index("--run_dir") + 1] = str(own)
    assert main(words) == 0
    again = EvaluationResult.load(own)
    assert kept.scalars == pytest.approx(
        {name: again.scalars[name] for name in kept.scalars}, rel=1e-6, nan_ok=True
    )
    for name in ("split", "step", "regularizer", "seed", "shards", "k"):
        assert kept.about[name] == again.about[name]


@pytest.mark.slow
def test_the_folder_has_a_configuration_for_the_commands(finished: Finished) -> None:
    config = yaml.safe_load((finished.folder / "sweep.yaml").read_text())
    assert config["sweep"]["seed"] == [0, 1]
    assert Path(config["data"]["init_args"]["path"]) == finished.folder / "activations/digits-vit"
    assert "# Size of the dictionary." in (finished.folder / "sweep.yaml").read_text()


@pytest.mark.slow
def test_e_is_of_the_same_image_copy_by_copy(finished: Finished) -> None:
    """Images that share a sample differ, and each is judged by its own embedding."""
    vit, cnn = (
        rows_by_image(finished.folder / "activations" / name)
        for name in ("digits-vit", "digits-cnn")
    )
    assert vit.keys() == cnn.keys()
    assert len(vit) == COPIES * 1797
    module = digits.train_digits_cnn(finished.folder / "encoders")
    images = digits.Digits(COPIES).images
    for sample, copy in ((0, 0), (0, 1), (5, 1)):
        expected = module[:5](images[copy * 1797 + sample][None])[0]
        cosine = functional.cosine_similarity(torch.from_numpy(cnn[sample, copy]), expected, dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-4)


def rows_by_image(folder: Path) -> dict[tuple[int, int], Any]:
    """The row of every image, by sample and token index."""
    shards = ShardSet(folder)
    found = {}
    for chunk in range(len(shards.chunks)):
        sample, token = shards.read_index(chunk)[:2]
        (rows,) = shards.read_activations([chunk])
        found |= {
            (int(s), int(t)): row.astype(np.float32)
            for s, t, row in zip(sample, token, rows, strict=True)
        }
    shards.close()
    return found


@pytest.mark.slow
def test_after_an_interruption_it_goes_on_with_what_is_left(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = evaluated(finished.folder)
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*.safetensors")}
    for run in runs[:2]:
        (run / "evaluation.json").unlink()
        del before[run / "evaluation.safetensors"]
    (finished.folder / "report.html").unlink()
    asked: list[Path] = []

    def interrupted(folder: Path, *args: Any, **options: Any) -> Any:
        asked.append(folder)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return evaluate_run(folder, *args, **options)

    evaluate_run = steps.evaluate_run
    monkeypatch.setattr(steps, "evaluate_run", interrupted)
    words = ["demo", "--run_dir", str(finished.folder), "--seeds", "2"]
    assert main(words) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert main(words) == 0
    assert len(asked) == 3 and asked[1] == asked[2] and {*asked} == {*runs[:2]}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert capsys.readouterr().out.splitlines()[-1] == str(finished.folder / "report.html")


@pytest.mark.slow
def test_a_folder_with_other_seeds_is_left_alone(
    finished: Finished, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (finished.folder / "sweep.yaml").read_bytes()
    assert main(["demo", "--run_dir", str(finished.folder), "--seeds", "3"]) == 1
    assert "sweep.yaml is not what --seeds 3 asks for" in capfd.readouterr().err
    assert (finished.folder / "sweep.yaml").read_bytes() == before


def test_seeds_must_be_positive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--run_dir", str(tmp_path), "--seeds", "0"]) == 1
    assert "seeds must be at least 1, got 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_configuration_is_that_of_configs() -> None:
    assert (files("lightsae.demo") / "sweep.yaml").read_text() == CONFIG.read_text()
