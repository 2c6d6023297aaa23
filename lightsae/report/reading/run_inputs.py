"""Run folders as a report reads them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.runs import MetricsFile
from lightsae.runs.sweep import SweepFile

_EVALUATION = "evaluation.json"
# Of the data, what does not make a run another one: its seed, where rows lie, how they are read.
_ANY_DATA = ("seed", "path", "embeddings", "readers")
_OF_TRAINER = (
    "max_epochs",
    "max_steps",
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
)


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
    def seed(self) -> int | None:
        """Its seed; None where it is not known."""
        found: int | None = self.result.about.get("seed")
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """What it was trained with by dotted keys, seeds and places left out."""
        data = {key: each for key, each in self.data_settings().items() if key not in _ANY_DATA}
        trainer = self.config.get("trainer")
        told = trainer if isinstance(trainer, dict) else {}
        length = {key: told[key] for key in _OF_TRAINER if key in told}
        flat = _flat({"model": self.config.get("model"), "data": data, "trainer": length})
        return {**flat, "d_sae": self.result.d_sae, "k": self.result.about.get("k")}

    @property
    def variant(self) -> object:
        """What runs have in common that differ in nothing but the seed."""
        return self.regularizer, self.weight, frozenset(self.settings.items())

    @property
    def regularizer(self) -> str:
        """Name of its regularizer, or "baseline"."""
        found = (self.result.about.get("regularizer") or {}).get("name") if self.weight else None
        return str(found or "baseline")

    def data_settings(self) -> dict[str, Any]:
        """`init_args` of its data module, or empty."""
        data = self.config.get("data")
        settings = data.get("init_args") if isinstance(data, dict) else None
        return settings if isinstance(settings, dict) else {}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted keys, numbers and texts; of anything else its text."""
    if not isinstance(value, dict):
        leaf = value if value is None or isinstance(value, int | float | str) else str(value)
        return {prefix: leaf}
    return {
        name: leaf
        for key, each in value.items()
        for name, leaf in _flat(each, f"{prefix}.{key}" if prefix else str(key)).items()
    }


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


def read_sweep(folders: Sequence[Path]) -> SweepFile | None:
    """The sweep.json of the first folder that has one.

    Raises:
        LightsaeError: If it is not what a sweep writes.
    """
    found = (folder / "sweep.json" for folder in folders)
    return next((SweepFile(path) for path in found if path.is_file()), None)
