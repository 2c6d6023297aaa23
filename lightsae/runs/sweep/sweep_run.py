"""The course of a sweep: rounds that look for lambda, the grid, the choice."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Callback, LightningDataModule, Trainer
from rich.console import Console

from lightsae.runs.sweep.choice import Choice, choose_weight, paired_differences
from lightsae.runs.sweep.grid import BASELINE, Grid, Point, groups
from lightsae.runs.sweep.group_training import Group, forget, train_group
from lightsae.runs.sweep.lambda_finder import (
    AROUND,
    FIRST,
    ROUNDS,
    bracket,
    first_guess,
    next_weights,
    rounded,
)
from lightsae.runs.sweep.progress import SweepProgress
from lightsae.runs.sweep.sweep_file import GRID, Result, SweepFile
from lightsae.sae import Regularizer
from lightsae.training.module import SAEModule

Setting = tuple[int, int, float | None]
Weights = dict[tuple[Setting, str], list[float]]


class Command(Protocol):
    """What makes the objects of a sweep."""

    datamodule: LightningDataModule

    def settings(self, point: Point) -> dict[str, Any]:
        """Settings of `fit` for one autoencoder, with every default, as plain values."""
        ...

    def module(self, point: Point) -> SAEModule:
        """The module of one autoencoder."""
        ...

    def make_trainer(self, callbacks: list[Callback], share: float = 1.0) -> Trainer:
        """A trainer for a share of the configuration's epochs or steps."""
        ...

    @property
    def checkpoint_every(self) -> int:
        """Steps between two checkpoints."""
        ...

    @property
    def shows_progress(self) -> bool:
        """Whether a progress bar is wanted."""
        ...


class SweepRun:
    """Trains what is not trained yet, in an order that depends on the configuration alone.

    Args:
        command: Makes modules and trainers.
        grid: What to train.
        file: What was trained before; results are added.
        folder: Of the sweep.
        console: Where progress and remarks go.
    """

    def __init__(
        self, command: Command, grid: Grid, file: SweepFile, folder: Path, console: Console
    ) -> None:
        self._command, self._grid, self.file = command, grid, file
        self._folder, self._console = folder, console

    def run(self) -> None:
        """Look for lambda if that is asked for, train the grid, choose."""
        points = self._grid.points() if not self._grid.settings.find_lambda else None
        if points is None:
            points = self._grid.beside_baselines(self._found_weights())
        self._train(GRID, points, share=1.0)
        self.file.finish([
            (each, self._choice(each, variant.name))
            for each in self._grid.settings_of_points() for variant in self._grid.variants
        ])  # fmt: skip

    def _choice(self, setting: Setting, variant: str) -> Choice:
        results = self.file.stages[GRID]
        points = [result.point for result in results.values()]
        tried = [p.weight for p in points if (p.setting, p.variant) == (setting, variant)]
        return choose_weight(variant, self.differences(results, setting, variant), tried)

    def _train(
        self, stage: str, points: Sequence[Point], share: float,
        probes: Mapping[str, Regularizer] | None = None,
    ) -> None:  # fmt: skip
        """Train the groups of a stage that have no results yet."""
        done = self.file.stages.get(stage, {})
        found = groups(points, self._grid.settings.at_once)
        for number, members in enumerate(found, start=1):
            group = self._group(stage, members, probes, share)
            if not all(point.name in done for point in members):
                title = f"{stage}, group {number} of {len(found)}"
                self._say(f"{title}: {len(members)} autoencoders of k = {members[0].k}, "
                          f"d_sae = {members[0].d_sae}")  # fmt: skip
                results = train_group(
                    group, self._trainer_maker(title, share), self._command.datamodule,
                    self._command.checkpoint_every,
                )  # fmt: skip
                self.file.add(stage, results)
                for result in results:
                    if result.failure is not None:
                        self._say(f"{result.point.name} failed at step {result.step}: "
                                  f"{result.failure}")  # fmt: skip
            forget(group)

    def _group(
        self, stage: str, members: Sequence[Point], probes: Mapping[str, Regularizer] | None,
        share: float,
    ) -> Group:  # fmt: skip
        def make(point: Point) -> SAEModule:
            module = self._command.module(point)
            for each in (module.regularizer, module.anchor):
                if each is not None:
                    # A short run would end before lambda has risen.
                    each.weight_warmup = round(each.weight_warmup * share)
            return module

        return Group(
            members,
            self._command.settings,
            make,
            self._folder / "groups" / f"{stage}-{members[0].name}",
            self._folder / "members" if stage == GRID else None,
            probes or {},
        )

    def _trainer_maker(self, title: str, share: float) -> Callable[[list[Callback]], Trainer]:
        def make(callbacks: list[Callback]) -> Trainer:
            shown: list[Callback] = []
            if callbacks and self._command.shows_progress:
                shown.append(SweepProgress(title, self._console))
            return self._command.make_trainer([*shown, *callbacks], share)

        return make

    def _found_weights(self) -> Weights:
        """Lambdas around the largest that short runs found admissible."""
        share = self._grid.settings.find_share
        tried = self._first_round(share)
        rounds = 0
        while rounds < ROUNDS:
            weights = {key: each for key, each in tried.items() if each}
            if not weights:
                break
            rounds += 1
            points = [
                Point(*each, seed, name, weight)
                for (each, name), found in weights.items() for weight in found
                for seed in self._seeds()
            ]  # fmt: skip
            self._train(_round_name(rounds), points, share)
            found_by_key = {key: self.found_so_far(*key, rounds) for key in tried}
            tried = {key: next_weights(each) if each else [] for key, each in found_by_key.items()}
        return {key: self._around(*key, rounds) for key in tried}

    def _seeds(self) -> list[int]:
        return list(dict.fromkeys(point.seed for point in self._grid.baselines()))

    def _first_round(self, share: float) -> Weights:
        """Train the baselines and guess from what they leave."""
        probes = {}
        for variant in self._grid.variants:
            point = Point(*self._grid.settings_of_points()[0], 0, variant.name, 1.0)
            regularizer = self._command.module(point).regularizer
            assert regularizer is not None
            probes[variant.name] = regularizer
        self._train(_round_name(0), self._grid.baselines(), share, probes)
        weights: Weights = {}
        for each in self._grid.settings_of_points():
            trained = [r.validation for r in self.file.stages[_round_name(0)].values()
                       if r.point.setting == each and r.state == "trained"]  # fmt: skip
            for variant in self._grid.variants:
                guesses = [
                    first_guess(found["reconstruction"], found[f"penalty/{variant.name}"])
                    for found in trained
                ]
                middle = math.exp(sum(map(math.log, guesses)) / len(guesses)) if guesses else 0.0
                weights[each, variant.name] = (
                    [rounded(middle * factor) for factor in FIRST] if guesses else []
                )
        return weights

    def found_so_far(self, setting: Setting, variant: str, rounds: int) -> dict[float, list[float]]:
        """Differences of every lambda of the short runs; NaN where a run failed.

        Args:
            setting: k, d_sae and learning rate.
            variant: Name of the regularizer.
            rounds: How many rounds count: a sweep that goes on has the later ones in its file.
        """
        results = [r for number in range(rounds + 1)
                   for r in self.file.stages.get(_round_name(number), {}).values()]  # fmt: skip
        by_name = {result.point.name: result for result in results}
        known = self.differences(by_name, setting, variant)
        tried = {r.point.weight for r in results
                 if r.point.setting == setting and r.point.variant == variant}  # fmt: skip
        return {weight: known.get(weight, [math.nan]) for weight in sorted(tried)}

    def _around(self, setting: Setting, variant: str, rounds: int) -> list[float]:
        found = self.found_so_far(setting, variant, rounds)
        if not found:
            return []
        low, high = bracket(found)
        middle = low if low is not None else high
        assert middle is not None
        shown = f"{low:g} keeps R2" if low is not None else "none keeps R2"
        self._say(f"{variant}, k = {setting[0]}, d_sae = {setting[1]}: of short runs, {shown}"
                  + (f", {high:g} does not" if high is not None else ""))  # fmt: skip
        return [rounded(middle * factor) for factor in AROUND]

    @staticmethod
    def differences(
        results: Mapping[str, Result], setting: Setting, variant: str
    ) -> dict[float, list[float]]:
        """Validation R2 less that of the baseline with the same seed, by lambda."""
        of_setting = [r for r in results.values() if r.point.setting == setting]
        trained = [r for r in of_setting if r.state == "trained" and not math.isnan(r.r2)]
        baseline = {r.point.seed: r.r2 for r in trained if r.point.variant == BASELINE}
        r2 = {(r.point.weight, r.point.seed): r.r2 for r in trained if r.point.variant == variant}
        return paired_differences(r2, baseline)

    def _say(self, text: str) -> None:
        self._console.print(
            f"{self._folder}: {text}", markup=False, highlight=False, soft_wrap=True
        )


def _round_name(number: int) -> str:
    """The stage of a round of short runs; 0 has the baselines."""
    return f"find {number}"
