"""Run folders as a report reads them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightsae.errors import LightsaeError
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun, read_evaluated
from lightsae.report.reading.latent_names import names_that_hold
from lightsae.runs import MetricsFile
from lightsae.runs.sweep import SweepFile

_EVALUATION = "evaluation.json"


@dataclass(kw_only=True)
class RunInputs(EvaluatedRun):
    """What a run folder holds.

    Attributes:
        name: What the page calls it: the last part of its path that tells it from the others.
        history: Lines of its metrics.jsonl.
        aligned: Share of its alive latents that `lightsae name` gave a name, by what it takes for
            a name, such as "cosine at least 0.8"; empty without names of its autoencoder.
    """

    name: str
    history: list[dict[str, Any]] = field(default_factory=list)
    aligned: dict[str, float] = field(default_factory=dict)

    @property
    def sae(self) -> Path:
        """The folder of its autoencoder."""
        return self.folder / "sae"


def read_runs(folders: Sequence[Path]) -> list[RunInputs]:
    """Read run folders; of a folder of run folders, such as a sweep, all that were evaluated.

    Args:
        folders: The folders.

    Raises:
        LightsaeError: If a folder is missing, was not evaluated, or a file in it is not what it
            should be.

    Example:
        >>> read_runs([Path("nowhere")])
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: nowhere: there is no such run folder
    """
    found: list[Path] = []
    for folder in folders:
        found += [path for path in _evaluated(folder) if path not in found]
    names = unique_names(found)
    return [_read(folder, name) for folder, name in zip(found, names, strict=True)]


def _evaluated(folder: Path) -> list[Path]:
    """The folder itself, or those below it that hold an evaluation."""
    if not folder.is_dir():
        raise LightsaeError(f"{folder}: there is no such run folder")
    found = _found(folder)
    if not found:
        raise LightsaeError(
            f"{folder}: holds no {_EVALUATION}, nor does a folder in it; "
            "`lightsae test --config FILE --run_dir DIR` writes one"
        )
    return found


def _found(folder: Path) -> list[Path]:
    if (folder / _EVALUATION).is_file():
        return [folder]
    below = sorted(path.parent for path in folder.glob(f"*/{_EVALUATION}"))
    return below + sorted(path.parent for path in folder.glob(f"*/*/{_EVALUATION}"))


def holds_runs(folder: Path) -> bool:
    """Whether a folder is a run that was evaluated, or one of such runs.

    Example:
        >>> holds_runs(Path("nowhere"))
        False
    """
    return bool(_found(folder))


def unique_names(folders: Sequence[Path]) -> list[str]:
    """Of each folder the last parts of its path that tell it from the others.

    Example:
        >>> unique_names([Path("runs/a"), Path("runs/b"), Path("old/b")])
        ['a', 'runs/b', 'old/b']
    """
    whole = [folder.absolute().parts for folder in folders]
    lengths = [1] * len(whole)
    while True:
        names = ["/".join(parts[-n:]) for parts, n in zip(whole, lengths, strict=True)]
        counts = Counter(names)
        longer = [
            n + (counts[name] > 1 and n < len(parts))
            for name, n, parts in zip(names, lengths, whole, strict=True)
        ]
        if longer == lengths:
            return names
        lengths = longer


def _read(folder: Path, name: str) -> RunInputs:
    """One run folder."""
    run = read_evaluated(folder)
    history = MetricsFile(folder / "metrics.jsonl").rows()
    names = names_that_hold(folder)
    rule = f"{names.measure} at least {names.cutoff:g}" if names else ""
    return RunInputs(
        folder=folder, result=run.result, config=run.config, name=name, history=history,
        aligned={rule: names.alignment_rate} if names else {},
    )  # fmt: skip


def choose_baseline(runs: Sequence[RunInputs], asked: Path | None) -> int:
    """Which run the others are compared with.

    Args:
        runs: The runs.
        asked: The folder or name that a user gave; by default the first without a regularizer, or
            else the first.

    Raises:
        LightsaeError: If it is none of the runs.
    """
    if asked is None:
        return next((place for place, run in enumerate(runs) if run.weight == 0), 0)
    for place, run in enumerate(runs):
        if str(asked) == run.name or asked.absolute() == run.folder.absolute():
            return place
    names = ", ".join(run.name for run in runs)
    raise LightsaeError(f"baseline: {asked} is none of the runs: {names}")


def read_sweep(folders: Sequence[Path]) -> SweepFile | None:
    """The sweep.json of the first folder that has one.

    Raises:
        LightsaeError: If it is not what a sweep writes.
    """
    found = (folder / "sweep.json" for folder in folders)
    return next((SweepFile(path) for path in found if path.is_file()), None)
