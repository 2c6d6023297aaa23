"""`SteeringResult`: what a steering came to, and its steering.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightsae.errors import LightsaeError
from lightsae.files import write_whole
from lightsae.interventions.steering.task import GuardLimit, Split

FILE = "steering.json"
FORMAT = 1
BASELINE, RECONSTRUCTION, RANKED = "baseline", "reconstruction only", "ranked latents"
RANDOM, SHUFFLED, RAW = "random latents", "shuffled labels", "raw direction"
Rule = Literal["equal damage", "within limits"]
Outcome = Literal["works", "controls", "guards", "nothing", "no point"]


@dataclass(frozen=True)
class Estimate:
    """A metric at a point, with 95% intervals of the bootstrap over samples.

    Attributes:
        value: The metric.
        low: Lower end of its interval.
        high: Upper end.
        change: The metric less the baseline's on the same samples.
        change_low: Lower end of the paired interval.
        change_high: Upper end.
    """

    value: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float


@dataclass(frozen=True)
class Point:
    """A cell of the grid, or the baseline or reconstruction only, on a split.

    Attributes:
        arm: "baseline", "reconstruction only", "ranked latents", or a control: "random latents 1",
            "shuffled labels 1", "raw direction".
        split: "choice" or "test".
        metrics: Target and guards, by name.
        damage: Of the guard that suffers most, as a share of its limit: above 1 it is beyond.
        strength: Of the cell; 0 where nothing is steered.
        count: Latents per layer; 0 where nothing is steered.
        on_front: Whether no other point of its arm and split has both less damage and more of what
            the target is for.
    """

    arm: str
    split: Split
    metrics: dict[str, Estimate]
    damage: float
    strength: float = 0.0
    count: int = 0
    on_front: bool = False

    @property
    def cell(self) -> tuple[float, int]:
        """Strength and number of latents."""
        return self.strength, self.count


@dataclass(frozen=True)
class Comparison:
    """The chosen point beside the best of a control, on the test split.

    Attributes:
        control: Name of the arm.
        rule: "equal damage": no more damage on the choice split than the chosen point has there;
            "within limits": every guard within its limit there.
        found: Whether the control has such a point; if not, the baseline stands for it.
        strength: Of the control's point.
        count: Its latents per layer.
        difference: The chosen point's target less the control's.
        low: Lower end of the paired 95% interval.
        high: Upper end.
        beaten: Whether the interval lies on the side of the chosen point.
    """

    control: str
    rule: Rule
    found: bool
    strength: float
    count: int
    difference: float
    low: float
    high: float
    beaten: bool


@dataclass
class SteeringResult:
    """What a steering came to.

    Attributes:
        target: Name of the metric that it was for.
        target_falls: Whether less of it is better.
        guards: The limits of the guards.
        settings: Options and what is known of the task.
        latents: Of each steered layer the ranked latents, best first, as many as the grid has.
        signs: Of these, +1 where more of the latent goes with label 1, else -1.
        points: Every point on the split "choice"; of the baseline, reconstruction only, the chosen
            point and the controls' best ones also on "test".
        chosen: Strength and number of latents of the chosen point, or None if no point keeps the
            guards within their limits.
        comparisons: The chosen point beside each control.
        outcome: works; controls: helps, but a control does as well at equal damage, or better with
            more damage within the limits; guards: helps, but a guard is beyond its limit on test;
            nothing: does not help on test; no point: none within limits.
        verdict: The outcome as a sentence, made by rule from the numbers.

    Example:
        >>> import tempfile
        >>> result = SteeringResult("wer", True, {"clean": GuardLimit(rise=0.01)})
        >>> SteeringResult.load(result.save(Path(tempfile.mkdtemp()))).guards
        {'clean': GuardLimit(rise=0.01, fall=None)}
    """

    target: str
    target_falls: bool
    guards: dict[str, GuardLimit]
    settings: dict[str, Any] = field(default_factory=dict)
    latents: dict[str, list[int]] = field(default_factory=dict)
    signs: dict[str, list[int]] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    chosen: tuple[float, int] | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    outcome: Outcome = "no point"
    verdict: str = ""

    @property
    def arms(self) -> list[str]:
        """Names of the arms that have a grid, the ranked latents first."""
        return list(dict.fromkeys(point.arm for point in self.points if point.count))

    def points_of(self, arm: str, split: Split) -> list[Point]:
        """The points of an arm on a split."""
        return [point for point in self.points if (point.arm, point.split) == (arm, split)]

    def save(self, folder: Path) -> Path:
        """Write steering.json; a crash leaves the old file or the new one.

        Args:
            folder: Where; made if it is not there.

        Returns:
            The file.

        Raises:
            LightsaeError: If it cannot be written.
        """
        path = folder / FILE
        content = {"format": FORMAT, **asdict(self)}
        write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "SteeringResult":
        """Read steering.json.

        Args:
            path: The file.

        Raises:
            LightsaeError: If it cannot be read or is not what `save` writes.
        """
        try:
            content = json.loads(Path(path).read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise LightsaeError(f"{path} cannot be read: {error}") from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise LightsaeError(f"{path}: expected format {FORMAT} of a steering")
        try:
            return _result(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LightsaeError(f"{path} is not whole: {error!r}") from error


def _result(content: Mapping[str, Any]) -> SteeringResult:
    chosen = content["chosen"]
    return SteeringResult(
        **{
            **content,
            "guards": {name: GuardLimit(**limit) for name, limit in content["guards"].items()},
            "points": [_point(each) for each in content["points"]],
            "chosen": None if chosen is None else (float(chosen[0]), int(chosen[1])),
            "comparisons": [Comparison(**each) for each in content["comparisons"]],
        }
    )


def _point(content: Mapping[str, Any]) -> Point:
    metrics = {
        name: Estimate(**{part: float(value) for part, value in each.items()})
        for name, each in content["metrics"].items()
    }
    numbers = {name: float(content[name]) for name in ("damage", "strength")}
    return Point(**{**content, **numbers, "count": int(content["count"]), "metrics": metrics})
