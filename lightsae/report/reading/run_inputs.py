"""Run folders as a report reads them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.report.sweep_summary import explained_choices
from lightsae.runs import MetricsFile
from lightsae.runs.sweep import SweepFile

_EVALUATION = "evaluation.json"


@dataclass
class RunInputs:
    """What a run folder holds.

    Attributes:
        name: What the page calls it: the last part of its path that tells it from the others.
        folder: The run folder.
        result: Its evaluation.
        history: Lines of its metrics.jsonl.
        config: Its config.yaml, or empty.
    """

    name: str
    folder: Path
    result: EvaluationResult
    history: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def sae(self) -> Path:
        """The folder of its autoencoder."""
        return self.folder / "sae"

    @property
    def weight(self) -> float:
        """Its lambda, 0 without a regularizer."""
        return float((self.result.about.get("regularizer") or {}).get("weight") or 0)

    @property
    def variant(self) -> tuple[str, float, int, int | None]:
        """What runs have in common that differ in nothing but the seed."""
        about = self.result.about
        name = (about.get("regularizer") or {}).get("name") if self.weight else None
        return (name or "baseline", self.weight, self.result.d_sae, about.get("k"))

    def data_settings(self) -> dict[str, Any]:
        """`init_args` of its data module, or empty."""
        data = self.config.get("data")
        settings = data.get("init_args") if isinstance(data, dict) else None
        return settings if isinstance(settings, dict) else {}


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
    if (folder / _EVALUATION).is_file():
        return [folder]
    below = sorted(path.parent for path in folder.glob(f"*/{_EVALUATION}"))
    below += sorted(path.parent for path in folder.glob(f"*/*/{_EVALUATION}"))
    if not below:
        raise LightsaeError(
            f"{folder}: holds no {_EVALUATION}, nor does a folder in it; "
            "`lightsae test --config FILE --run_dir DIR` writes one"
        )
    return below


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
    result = EvaluationResult.load(folder)
    config: Any = {}
    path = folder / "config.yaml"
    if path.is_file():
        try:
            config = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            first = str(error).splitlines()[0]
            raise LightsaeError(f"{path} cannot be read: {first}") from error
    history = MetricsFile(folder / "metrics.jsonl").rows()
    return RunInputs(name, folder, result, history, config if isinstance(config, dict) else {})


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


def read_choices(folders: Sequence[Path]) -> list[str]:
    """A sentence on each lambda that a sweep chose, of the first folder that is one; or none.

    Raises:
        LightsaeError: If its sweep.json cannot be read.
    """
    path = next((path for each in folders if (path := each / "sweep.json").is_file()), None)
    return [] if path is None else explained_choices(SweepFile(path))
