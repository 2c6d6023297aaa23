"""The rounds that look for lambda, with runs whose R2 is made up."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lightsae.runs.sweep import sweep_run
from lightsae.runs.sweep.grid import Grid, Point
from lightsae.runs.sweep.group_training import Group
from lightsae.runs.sweep.settings import SweepSettings
from lightsae.runs.sweep.sweep_file import Result, SweepFile
from lightsae.sae import L1L2Ratio, TopK, VocabularyAnchor
from lightsae.training import SAEModule

BASE = {"model": {"init_args": {"d_sae": 64}}, "seed_everything": 0}


class Command:
    """Makes modules; nothing is trained."""

    datamodule: Any = None
    checkpoint_every = 1
    shows_progress = False

    def settings(self, point: Point) -> dict[str, Any]:
        return {}

    def module(self, point: Point) -> SAEModule:
        regularizer = L1L2Ratio(point.weight, weight_warmup=100) if point.weight else None
        anchor = VocabularyAnchor(0.1, torch.eye(2), weight_warmup=40)
        return SAEModule(point.d_sae, TopK(point.k), regularizer, anchor=anchor)

    def make_trainer(self, callbacks: list[Any], share: float = 1.0) -> Any:
        raise AssertionError("nothing is trained")


def sweep(
    folder: Path, monkeypatch: pytest.MonkeyPatch, outcome: Callable[[Point], float | None],
    **settings: Any,
) -> tuple[SweepFile, list[tuple[Point, SAEModule]]]:  # fmt: skip
    """A sweep whose runs end with what `outcome` says, None being a failure; what it trained."""
    trained = []

    def train(group: Group, *_: Any) -> list[Result]:
        results = []
        for point in group.points:
            trained.append((point, group.make(point)))
            r2 = outcome(point)
            found = {"reconstruction": 0.1, "penalty/L1L2Ratio": 30.0}
            results.append(
                Result(point, "failed", 1, "it is made to") if r2 is None
                else Result(point, "trained", 9, None, found | {"r2": r2})
            )  # fmt: skip
        return results

    monkeypatch.setattr(sweep_run, "train_group", train)
    grid = Grid(SweepSettings(regularizer=["L1L2Ratio"], find_lambda=True, **settings), BASE)
    file = SweepFile(folder / "sweep.json")
    console = Console(file=io.StringIO())
    sweep_run.SweepRun(Command(), grid, file, folder, console).run()  # type: ignore[arg-type]
    return file, trained


def weights(file: SweepFile) -> dict[str, set[float]]:
    return {stage: {r.point.weight for r in found.values()} for stage, found in file.stages.items()}


@pytest.mark.parametrize("kept", ["grid", "find 5", "find 3", "find 1", "find 0"])
def test_a_search_that_goes_on_tries_what_an_unbroken_one_does(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lambda costs R2, so that the search is as long as it can be."""
    file, _ = sweep(tmp_path, monkeypatch, lambda _: 0.5)
    whole, choices = weights(file), file.choices
    for stage in list(file.stages)[list(file.stages).index(kept) + 1 :]:
        del file.stages[stage]
    file.finish([])
    again, trained = sweep(tmp_path, monkeypatch, lambda _: 0.5)
    assert weights(again) == whole and again.choices == choices
    assert bool(trained) == (kept != "grid")


def test_a_setting_whose_baselines_fail_does_not_end_the_search_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = sweep(
        tmp_path, monkeypatch,
        lambda point: None if point.lr == 10 else 0.5 - max(point.weight - 0.001, 0),
        lr=[0.1, 10.0],
    )  # fmt: skip
    chosen = {setting[2]: choice.weight for setting, choice in file.choices}
    assert chosen[10.0] is None
    assert chosen[0.1] == pytest.approx(0.001, rel=0.5)


def test_short_runs_warm_lambda_up_over_the_same_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trained = sweep(tmp_path, monkeypatch, lambda point: 0.5 - point.weight, find_share=0.25)
    for name, warmup in (("regularizer", 100), ("anchor", 40)):
        losses = [getattr(module, name) for _, module in trained]
        found = [each.weight_warmup for each in losses if each is not None]
        assert found[0] == warmup / 4 and found[-1] == warmup


def test_the_largest_that_trained_is_not_called_the_largest_that_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = sweep(tmp_path, monkeypatch, lambda point: None if point.weight > 0.001 else 0.5)
    ((_, choice),) = file.choices
    assert choice.weight is not None and choice.weight <= 0.001 and not choice.is_largest
