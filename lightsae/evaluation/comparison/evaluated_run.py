"""A run folder that was evaluated: its result, and the settings that make it what it is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lightsae.errors import LightsaeError
from lightsae.evaluation.result import EvaluationResult

# Of the data, what does not make a run another one: its seed, where rows lie, how they are read.
_ANY_DATA = ("seed", "path", "embeddings", "readers")
_START = "model.init_args.start_from"
_OF_TRAINER = (
    "max_epochs", "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val",
)  # fmt: skip


@dataclass(kw_only=True)
class EvaluatedRun:
    """What a run folder says of itself.

    Attributes:
        folder: The run folder.
        result: Its evaluation.
        config: Its config.yaml, or empty.

    Example:
        >>> about = {"d_sae": 8, "k": 2, "regularizer": {"name": "L1L2Ratio", "weight": 0.1}}
        >>> run = EvaluatedRun(folder=Path("runs/a"), result=EvaluationResult(about))
        >>> run.regularizer, run.weight, run.settings["k"]
        ('L1L2Ratio', 0.1, 2)
    """

    folder: Path
    result: EvaluationResult
    config: dict[str, Any] = field(default_factory=dict)

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
        # Whether it was fresh is a setting, where the weights lay is none.
        if flat.pop(_START, None) is not None:
            flat[_START] = "given"
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


def read_evaluated(folder: str | Path) -> EvaluatedRun:
    """Read a run folder that was evaluated.

    Args:
        folder: With evaluation.json, and config.yaml if it is there.

    Raises:
        LightsaeError: If a file is missing or not what it should be.
    """
    folder = Path(folder)
    result = EvaluationResult.load(folder)
    config: Any = {}
    path = folder / "config.yaml"
    if path.is_file():
        try:
            config = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            first = str(error).splitlines()[0]
            raise LightsaeError(f"{path} cannot be read: {first}") from error
    return EvaluatedRun(
        folder=folder, result=result, config=config if isinstance(config, dict) else {}
    )


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
