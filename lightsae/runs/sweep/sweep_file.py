"""`sweep.json`: what every autoencoder of a sweep ended with, and what was chosen."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightsae.errors import LightsaeError
from lightsae.files import replacing
from lightsae.runs.sweep.choice import Choice
from lightsae.runs.sweep.grid import Point

FORMAT = 1
State = Literal["trained", "failed"]
GRID = "grid"


@dataclass(frozen=True)
class Result:
    """What one autoencoder ended with.

    Attributes:
        point: What tells it from others.
        state: Trained to the end, or failed.
        step: Optimizer steps that it took part in.
        failure: Why it failed, or None.
        validation: Metrics of the validation split: r2, l0, dead, loss, reconstruction, penalty;
            none of one that failed.
    """

    point: Point
    state: State
    step: int
    failure: str | None = None
    validation: dict[str, float] = field(default_factory=dict)

    @property
    def r2(self) -> float:
        """Of the validation split; NaN where it failed."""
        return self.validation.get("r2", math.nan)


class SweepFile:
    """Results by stage, in a file that is replaced as a whole.

    The stage "grid" has the autoencoders that have run folders; those before it looked for lambda.

    Args:
        path: The file.

    Attributes:
        stages: Results by name of the stage and of the autoencoder.
        choices: What the rule chose, by setting; empty until the sweep is done.
        shards: What tells the shards from others.
        vocabulary: Digest of the anchor's vocabulary, or None.

    Raises:
        LightsaeError: If the file is there and cannot be read.

    Example:
        >>> import tempfile
        >>> file = SweepFile(Path(tempfile.mkdtemp()) / "sweep.json")
        >>> file.add("grid", [Result(Point(8, 64, None, 0), "trained", 9, None, {"r2": 0.5})])
        >>> SweepFile(file.path).stages["grid"]["k8-d_sae64-baseline-seed0"].r2
        0.5
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages: dict[str, dict[str, Result]] = {}
        self.choices: list[tuple[tuple[int, int, float | None], Choice]] = []
        self.shards: dict[str, str] = {}
        self.vocabulary: str | None = None
        if path.exists():
            self._read()

    def add(self, stage: str, results: list[Result]) -> None:
        """Keep what a group ended with."""
        kept = self.stages.setdefault(stage, {})
        kept.update({result.point.name: result for result in results})
        self._write()

    def finish(self, choices: list[tuple[tuple[int, int, float | None], Choice]]) -> None:
        """Keep what was chosen."""
        self.choices = choices
        self._write()

    def _write(self) -> None:
        content = {
            "format": FORMAT,
            "shards": self.shards,
            "vocabulary": self.vocabulary,
            "stages": [
                {"name": name, "autoencoders": [_plain(name, each) for each in found.values()]}
                for name, found in self.stages.items()
            ],
            "choices": [
                {"k": k, "d_sae": d_sae, "lr": lr, **_without_nan(asdict(choice))}
                for (k, d_sae, lr), choice in self.choices
            ],
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as temporary:
                temporary.write_text(json.dumps(content, indent=1) + "\n")
        except OSError as error:
            raise LightsaeError(f"{self.path} cannot be written: {error.strerror}") from error

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise LightsaeError(f"{self.path} cannot be read: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise LightsaeError(f"{self.path}: expected format {FORMAT} of a sweep")
        try:
            self.shards = dict(content["shards"])
            self.vocabulary = content.get("vocabulary")
            self.stages = {
                stage["name"]: {each["name"]: _result(each) for each in stage["autoencoders"]}
                for stage in content["stages"]
            }
            self.choices = [_choice(each) for each in content["choices"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LightsaeError(f"{self.path} is not whole: {error!r}") from error


def _plain(stage: str, result: Result) -> dict[str, Any]:
    point = result.point
    folder = f"members/{point.name}" if stage == GRID else None
    return {
        "name": point.name, "folder": folder, **asdict(point), "state": result.state,
        "step": result.step, "failure": result.failure,
        "validation": _without_nan(result.validation),
    }  # fmt: skip


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null stands for it."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def _result(saved: dict[str, Any]) -> Result:
    point = Point(**{name: saved[name] for name in Point.__dataclass_fields__})
    if saved["name"] != point.name or saved["state"] not in ("trained", "failed"):
        raise ValueError(f"{saved['name']} is {saved['state']}, and its values make {point.name}")
    found = {name: float(value) for name, value in _with_nan(saved["validation"]).items()}
    return Result(point, saved["state"], saved["step"], saved["failure"], found)


def _choice(saved: dict[str, Any]) -> tuple[tuple[int, int, float | None], Choice]:
    given = {name: saved[name] for name in Choice.__dataclass_fields__}
    numbers = _with_nan({name: given[name] for name in ("difference", "standard_error")})
    return (saved["k"], saved["d_sae"], saved["lr"]), Choice(**{**given, **numbers})
