"""`steer`: the grid of a steering beside its controls, the choice, and the test of it."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightsae.activations.shards.folder_lock import check_writable, lock_folder
from lightsae.errors import LightsaeError
from lightsae.interventions.steering.arms import Arm, Cell, LatentArm
from lightsae.interventions.steering.bootstrap import Bootstrap
from lightsae.interventions.steering.choice import best, with_front
from lightsae.interventions.steering.controls import make_arms
from lightsae.interventions.steering.measurement import (
    Measurement,
    measured_bare,
    measured_cell,
    measured_reconstruction,
    require_same_samples,
)
from lightsae.interventions.steering.options import SteeringOptions
from lightsae.interventions.steering.result import (
    BASELINE,
    RANKED,
    RECONSTRUCTION,
    Comparison,
    Point,
    Rule,
    SteeringResult,
)
from lightsae.interventions.steering.steering_folder import SteeringFolder, digest
from lightsae.interventions.steering.task import Split, SteeringTask
from lightsae.interventions.steering.task_checks import require_whole, steered_layers
from lightsae.interventions.steering.verdict import better, outcome_of, verdict_of

_NONE: Cell = (0.0, 0)


def steer(
    task: SteeringTask,
    folder: str | Path,
    options: SteeringOptions,
    *,
    about: Mapping[str, Any] | None = None,
) -> SteeringResult:
    """Steer over a grid beside controls, choose a point, and test it on held-out samples.

    1. Latents are ranked on the task's examples.
    2. On the split "choice" the baseline, reconstruction only, and every cell of the grid are
       measured: strength x number of latents, for the ranked latents and for each control.
    3. Chosen is the point of the ranked latents with the best target among those whose guards stay
       within their limits. Of each control the best point is taken likewise, and the best one with
       no more damage than the chosen point has; where there is none, the baseline stands for it.
    4. On the split "test" these points are measured, and the verdict is made by rule: see
       `SteeringResult.outcome`.

    Intervals are 95% percentiles of the bootstrap over samples; those of changes and differences
    are paired, as all points have the same resamples. Ours: controls, choice and verdict.

    Args:
        task: What is steered.
        folder: Gets settings.json, arms.safetensors, cells/ and steering.json. What was measured
            there is not measured again: after a stop the same call goes on, to the same bits.
        options: The grid, the way of steering, the controls.
        about: What else makes the steering what it is, as plain values: the task's own settings,
            such as a seed of its data, which are not seen otherwise, save by the task's `hashes`; a
            folder with others is refused.

    Returns:
        What it came to; steering.json has it too.

    Raises:
        LightsaeError: If the task is not whole or its model in training mode, the folder holds
            something else or other settings, or a measurement is not finite.
    """
    require_whole(task)
    layers, folder = steered_layers(task, options), Path(folder)
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(folder)
    try:
        name = f"{type(task).__module__}.{type(task).__name__}"
        settings = {
            "task": dict(about or {"class_path": name}),
            "options": asdict(options),
            "steered": _steered(task),
            "model": digest(task.model),
            "saes": {layer: digest(task.saes[layer]) for layer in layers},
            "read": dict(task.hashes()),
        }
        settings = _as_read(settings)
        kept = SteeringFolder(folder, settings)
        return _Run(task, layers, options, kept).result(settings)
    finally:
        os.close(lock)


class _Run:
    """One steering while it runs."""

    def __init__(
        self,
        task: SteeringTask,
        layers: list[str],
        options: SteeringOptions,
        folder: SteeringFolder,
    ) -> None:
        self.task, self.layers, self.options, self.folder = task, layers, options, folder
        self.arms: dict[str, Arm] = {}
        self.measured: dict[tuple[str, Split, Cell], Measurement] = {}
        seed = options.seed
        self.choice = Bootstrap("choice", options.bootstrap, seed)
        self.test = Bootstrap("test", options.bootstrap, seed)

    def result(self, settings: dict[str, Any]) -> SteeringResult:
        """Everything in order; steering.json at the end."""
        task = self.task
        before = [self._point(arm, "choice", _NONE) for arm in (BASELINE, RECONSTRUCTION)]
        made = self.folder.arms(
            self.options.cells, lambda: make_arms(task, self.layers, self.options)
        )
        self.arms = {arm.name: arm for arm in made}
        grids = self._grids()
        found = SteeringResult(
            task.target, task.target_falls, dict(task.guards), settings,
            points=[*before, *(point for grid in grids.values() for point in grid)],
        )  # fmt: skip
        ranked = made[0]
        assert isinstance(ranked, LatentArm)
        for layer in self.layers:
            found.latents[layer], found.signs[layer] = ranked.told(layer)
        self._choose_and_test(found, {RECONSTRUCTION: before[1:], **grids})
        found.outcome = outcome_of(found)
        found.verdict = verdict_of(found)
        found.save(self.folder.path)
        return found

    def _grids(self) -> dict[str, list[Point]]:
        """The points of every arm on the split of the choice."""
        wanted = [(arm, cell) for arm in self.arms for cell in self.options.cells]
        points = self._points("choice", wanted)
        return {
            arm: with_front(
                [point for point in points if point.arm == arm],
                self.task.target, self.task.target_falls,
            )
            for arm in self.arms
        }  # fmt: skip

    def _choose_and_test(self, found: SteeringResult, grids: dict[str, list[Point]]) -> None:
        """The chosen point and the best ones of the controls, measured on the test split."""
        chosen = self._best(grids.pop(RANKED), 1.0)
        rules: list[tuple[Rule, float]] = [("within limits", 1.0)]
        picks: list[tuple[str, Rule, Point | None]] = []
        if chosen is not None:
            found.chosen = chosen.cell
            rules.insert(0, ("equal damage", chosen.damage))
            picks = [
                (name, rule, self._best(grid, limit))
                for name, grid in grids.items()
                for rule, limit in rules
            ]
        tested = [(BASELINE, _NONE), (RECONSTRUCTION, _NONE)]
        tested += [(RANKED, found.chosen)] if found.chosen else []
        tested += [(point.arm, point.cell) for *_, point in picks if point is not None]
        found.points += self._points("test", list(dict.fromkeys(tested)))
        if found.chosen:
            found.comparisons = [self._comparison(found.chosen, *pick) for pick in picks]

    def _best(self, points: list[Point], limit: float) -> Point | None:
        return best(points, self.task.target, self.task.target_falls, limit)

    def _comparison(
        self, chosen: Cell, control: str, rule: Rule, point: Point | None
    ) -> Comparison:
        """The chosen point beside one of a control, or the baseline in its place, on test."""
        arm, cell = (BASELINE, _NONE) if point is None else (point.arm, point.cell)
        target, falls = self.task.target, self.task.target_falls
        mine = self._measurement(RANKED, "test", chosen)[target]
        other = self._measurement(arm, "test", cell)[target]
        difference, low, high = self.test.difference(mine, other)
        return Comparison(
            control, rule, point is not None, *cell, difference, low, high,
            better(low, high, falls),
        )  # fmt: skip

    def _points(self, split: Split, wanted: list[tuple[str, Cell]]) -> list[Point]:
        """Cells with their intervals, measured beside a bar."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                   TextColumn("points"), TimeRemainingColumn())  # fmt: skip
        points = []
        console = Console(stderr=True)
        silent = not console.is_terminal
        with Progress(*columns, console=console, transient=True, disable=silent) as progress:
            bar = progress.add_task(split, total=len(wanted))
            for arm, cell in wanted:
                progress.update(bar, description=f"{split}, {arm}")
                points.append(self._point(arm, split, cell))
                progress.advance(bar)
        return points

    def _point(self, arm: str, split: Split, cell: Cell) -> Point:
        """A cell with its intervals."""
        measurement = self._measurement(arm, split, cell)
        baseline = self._measurement(BASELINE, split, _NONE)
        bootstrap = self.choice if split == "choice" else self.test
        metrics = {
            name: bootstrap.estimate(each, baseline[name]) for name, each in measurement.items()
        }
        damages = [limit.damage(metrics[name].change) for name, limit in self.task.guards.items()]
        return Point(arm, split, metrics, max(damages, default=0.0), *cell)

    def _measurement(self, arm: str, split: Split, cell: Cell) -> Measurement:
        """What a cell has, from memory, from the folder, or measured now."""
        key = (arm, split, cell)
        if key not in self.measured:
            if arm == BASELINE:
                measure = partial(measured_bare, self.task, split)
            elif arm == RECONSTRUCTION:
                measure = partial(measured_reconstruction, self.task, self.layers, split)
            else:
                measure = partial(
                    measured_cell, self.arms[arm], self.task, self.options, cell, split
                )
            if arm != BASELINE:
                measure = partial(self._like_baseline, measure, arm, split, cell)
            self.measured[key] = self.folder.cell(arm, split, cell, measure)
        return self.measured[key]

    def _like_baseline(
        self, measure: Callable[[], Measurement], arm: str, split: Split, cell: Cell
    ) -> Measurement:
        """What is measured now; refused before it is kept if its samples are not the baseline's."""
        found = measure()
        where = f"{arm}, strength {cell[0]:g}, {cell[1]} latents, on {split}"
        require_same_samples(found, self._measurement(BASELINE, split, _NONE), where)
        return found


def _steered(task: SteeringTask) -> dict[str, Any]:
    """What a task says of itself, as plain values."""
    return {
        "target": task.target,
        "target_falls": task.target_falls,
        "guards": {name: asdict(limit) for name, limit in task.guards.items()},
        "pooling": task.pooling,
        "positions": None if task.positions is None else list(task.positions),
        "layouts": None if task.layouts is None else dict(task.layouts),
    }


def _as_read(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back."""
    try:
        found: dict[str, Any] = json.loads(json.dumps(settings))
    except (TypeError, ValueError) as error:
        raise LightsaeError(f"about: expected plain values: {error}") from error
    return found
