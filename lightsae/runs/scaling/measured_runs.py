"""The loss that trained autoencoders ended with, from sweeps or from evaluated run folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from lightsae.errors import LightsaeError
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun, read_evaluated
from lightsae.evaluation.result import JSON, EvaluationResult
from lightsae.planning.scaling import LeftOut, Run
from lightsae.runs.run_folder import RunFolder
from lightsae.runs.sweep.grid import BASELINE
from lightsae.runs.sweep.sweep_file import GRID, Result, SweepFile
from lightsae.sae.save_load import SETTINGS, read_settings

_SWEEP = "sweep.json"
# What runs of one law may differ in: size, length and how fast they learn.
_FREE = (
    "d_sae", "k", "model.init_args.d_sae", "model.init_args.selection.init_args.k",
    "model.init_args.selection.init_args.keep", "trainer.max_epochs", "trainer.max_steps",
)  # fmt: skip
_FREE_PREFIXES = (
    "model.init_args.optimizer", "model.init_args.lr_scheduler", "model.init_args.regularizer",
)  # fmt: skip


@dataclass
class MeasuredRuns:
    """What laws are fitted to.

    Attributes:
        d_in: Width of the activations.
        decoded: Latents decoded per latent of k.
        runs: Trained autoencoders.
        left_out: Others of the same folders, and why.
        notes: What was chosen among them.
        split: Whose R2 counts.
    """

    d_in: int
    decoded: int
    split: str
    runs: list[Run] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: "MeasuredRuns", folder: Path) -> None:
        """Take in the runs of another folder.

        Raises:
            LightsaeError: If they are not comparable.
        """
        for name, told in (("d_in", "d_in"), ("split", "split"), ("decoded", "decoded latents")):
            one, two = getattr(self, name), getattr(other, name)
            if one != two:
                raise LightsaeError(f"{folder}: {told} is {two}, that of the others {one}")
        self.runs += other.runs
        self.left_out += other.left_out
        self.notes += other.notes


def measured_runs(folders: Sequence[Path]) -> MeasuredRuns:
    """Losses of all runs of some folders.

    Args:
        folders: Of sweeps, or run folders that were evaluated.

    Raises:
        LightsaeError: If a folder is missing, given twice or holds neither, or runs differ in more
            than size, k, seed, length, optimizer and schedule.
    """
    found: MeasuredRuns | None = None
    first: dict[str, Any] = {}
    for place, folder in enumerate(folders):
        if not folder.is_dir():
            raise LightsaeError(f"{folder}: there is no such folder")
        if any(folder.samefile(each) for each in folders[:place]):
            raise LightsaeError(f"{folder} is given twice")
        swept = (folder / _SWEEP).is_file()
        if not swept and not (folder / JSON).is_file():
            raise LightsaeError(
                f"{folder}: has neither {_SWEEP} of `lightsae sweep` nor {JSON} of `lightsae test`"
            )
        own, settings = _of_sweep(folder) if swept else _of_run(folder)
        if found is None:
            found, first = own, settings
            continue
        differing = sorted(
            key for key in {*first, *settings} if first.get(key) != settings.get(key)
        )
        if differing:
            key = differing[0]
            raise LightsaeError(
                f"{folder}: {key} is {settings.get(key)}, that of {folders[0]} {first.get(key)}"
            )
        found.add(own, folder)
    assert found is not None
    return found


def _of_sweep(folder: Path) -> tuple[MeasuredRuns, dict[str, Any]]:
    config = RunFolder(folder).settings()
    results = list(SweepFile(folder / _SWEEP).stages.get(GRID, {}).values())
    trained = [each for each in results if each.state == "trained"]
    if not trained:
        raise LightsaeError(f"{folder}: no autoencoder of the sweep is trained to the end")
    member = folder / "members" / trained[0].point.name / "sae" / SETTINGS
    found = MeasuredRuns(read_settings(member)["d_in"], _decoded(config), "validation")
    per_step = _rows_per_step(config, folder)
    rates, note = _best_rates(trained)
    found.notes += [f"{folder}: {note}"] if note else []
    for each in results:
        name = f"{folder}/{each.point.name}"
        reason = _reason(each, rates)
        if reason:
            found.left_out.append(LeftOut(name, reason))
            continue
        point = each.point
        found.runs.append(
            Run(name, point.d_sae, point.k, point.seed, each.step * per_step, 1 - each.r2)
        )
    about = EvaluatedRun(folder=folder, result=EvaluationResult({"d_sae": 1}), config=config)
    return found, _fixed(about.settings)


def _best_rates(trained: Sequence[Result]) -> tuple[dict[tuple[int, int], float | None], str]:
    """Of each k and d_sae the learning rate with the least mean loss over seeds of baselines."""
    losses: dict[tuple[int, int], dict[float | None, list[float]]] = {}
    for each in trained:
        if each.point.variant == BASELINE:
            setting = losses.setdefault((each.point.k, each.point.d_sae), {})
            setting.setdefault(each.point.lr, []).append(1 - each.r2)
    # A rate at which a seed failed is none to be chosen where another has all.
    best = {
        setting: min(rates, key=lambda rate: (-len(rates[rate]), fmean(rates[rate])))
        for setting, rates in losses.items()
    }
    several = any(len(rates) > 1 for rates in losses.values())
    return best, "of several lr the one with the least loss counts at each k and d_sae" * several


def _reason(result: Result, rates: Mapping[tuple[int, int], float | None]) -> str | None:
    point = result.point
    if result.state == "failed":
        return f"failed at step {result.step}: {result.failure}"
    if point.variant != BASELINE:
        return f"has the regularizer {point.variant}"
    if rates[point.k, point.d_sae] != point.lr:
        return f"lr {point.lr:g} is not the best of its k and d_sae"
    return None


def _of_run(folder: Path) -> tuple[MeasuredRuns, dict[str, Any]]:
    run = read_evaluated(folder)
    about = run.result.about
    for key in ("d_in", "d_sae", "k", "step", "split"):
        if about.get(key) is None:
            raise LightsaeError(f"{folder / JSON}: about.{key} is missing")
    found = MeasuredRuns(about["d_in"], _decoded(run.config), about["split"])
    if run.regularizer != BASELINE:
        found.left_out.append(LeftOut(str(folder), f"has the regularizer {run.regularizer}"))
        return found, _fixed(run.settings)
    r2 = run.result.scalars.get("r2")
    loss = float("nan") if r2 is None else 1 - r2
    tokens = about["step"] * _rows_per_step(run.config, folder)
    found.runs.append(Run(str(folder), about["d_sae"], about["k"], run.seed or 0, tokens, loss))
    return found, _fixed(run.settings)


def _fixed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What all runs of a law must have in common."""
    return {
        key: value
        for key, value in settings.items()
        if key not in _FREE and not key.startswith(_FREE_PREFIXES)
    }


def _rows_per_step(config: Mapping[str, Any], folder: Path) -> int:
    """Rows of an optimizer step; a partial last batch of an epoch counts as a whole one."""
    data = (config.get("data") or {}).get("init_args") or {}
    rows = data.get("batch_size")
    if type(rows) is not int:
        raise LightsaeError(
            f"{folder / 'config.yaml'}: data.init_args.batch_size is {rows}, expected a number: "
            "tokens are steps times its rows"
        )
    trainer = config.get("trainer") or {}
    for key in ("accumulate_grad_batches", "devices", "num_nodes"):
        value = trainer.get(key)
        rows *= value if type(value) is int and value > 0 else 1
    return rows


def _decoded(config: Mapping[str, Any]) -> int:
    """Latents decoded per latent of k: `MultiTopK` decodes its larger code."""
    model = (config.get("model") or {}).get("init_args") or {}
    loss = model.get("reconstruction") or {}
    if str(loss.get("class_path", "")).rpartition(".")[2] != "MultiTopK":
        return 1
    return int((loss.get("init_args") or {}).get("multiple", 4))
