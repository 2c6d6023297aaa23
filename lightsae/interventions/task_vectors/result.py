"""`TaskVectorResult`: what an experiment on a task vector found, and its file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from lightsae.errors import LightsaeError
from lightsae.files import write_whole
from lightsae.interventions.task_vectors.projection import EnergyKept
from lightsae.interventions.task_vectors.proportions import (
    Flips,
    Proportion,
    mcnemar_exact,
    wilson_interval,
)

FORMAT = 1
FILE = "task_vectors.json"


@dataclass(frozen=True)
class Arm:
    """One way to change the model, and how it answers then.

    Attributes:
        name: What was done.
        layers: Where; of random layers, all that may be drawn.
        energy: Share of the vector's energy that was injected, mean over draws.
        scores: Right answers of each set of samples, once for each draw; one of an arm in which
            nothing is random.
        flips: Of each score the answers that differ from the base's; empty in older files.

    Example:
        >>> arm = Arm("base", (), 0.0, {"task": (Proportion(3, 10), Proportion(5, 10))})
        >>> arm.share("task"), arm.interval("task")
        (0.4, (0.305, 0.495))
    """

    name: str
    layers: tuple[str, ...]
    energy: float
    scores: Mapping[str, tuple[Proportion, ...]]
    flips: Mapping[str, tuple[Flips, ...]] = field(default_factory=dict)

    @property
    def draws(self) -> int:
        """How many there are."""
        return len(next(iter(self.scores.values())))

    def share(self, samples: str) -> float:
        """Right answers in a set, mean over draws."""
        return float(np.mean([each.share for each in self.scores[samples]]))

    def interval(self, samples: str) -> tuple[float, float]:
        """95%: of one score Wilson's interval, of several draws their quantiles."""
        scores = self.scores[samples]
        if len(scores) == 1:
            return wilson_interval(scores[0])
        low, high = np.quantile([each.share for each in scores], (0.025, 0.975))
        return float(low), float(high)

    def paired_p_value(self, samples: str) -> float | None:
        """McNemar's exact test against the base, sample by sample, of an arm of one draw.

        None where there are more draws or the answers are not known.

        Raises:
            MissingExtraError: If scipy is not installed.
        """
        flips = self.flips.get(samples, ())
        return mcnemar_exact(flips[0]) if len(flips) == 1 else None


@dataclass(frozen=True)
class LayerReading:
    """What the autoencoder says of a layer.

    Attributes:
        specificity: Its score.
        energy: Its share of the vector's energy.
        kept: Energy on the span of its most task-specific latents.
    """

    specificity: float
    energy: float
    kept: EnergyKept


@dataclass(frozen=True)
class TaskVectorResult:
    """An experiment on a task vector; see `task_vector_experiment`.

    Attributes:
        task: Name of the set of samples that the fine-tuning was for.
        n_layers: How many layers are chosen.
        scale: Factor of the vector.
        seed: Of what is random.
        readings: Of each layer what its autoencoder says, in the model's order.
        arms: The table.
        curves: Of each rule for choosing layers its arms, by number of layers.
    """

    task: str
    n_layers: int
    scale: float
    seed: int
    readings: Mapping[str, LayerReading]
    arms: tuple[Arm, ...]
    curves: Mapping[str, Mapping[int, Arm]]

    def arm(self, name: str) -> Arm:
        """The arm of that name.

        Raises:
            LightsaeError: If there is none.
        """
        found = [arm for arm in self.arms if arm.name == name]
        if not found:
            known = ", ".join(arm.name for arm in self.arms)
            raise LightsaeError(f"there is no arm {name!r}, expected one of: {known}")
        return found[0]

    @property
    def elsewhere(self) -> list[str]:
        """The other sets of samples."""
        return [name for name in self.arms[0].scores if name != self.task]

    def save(self, folder: str | Path) -> None:
        """Write task_vectors.json, replaced as a whole.

        Args:
            folder: Where; made if it is not there.

        Raises:
            LightsaeError: If it cannot be written.
        """
        content = json.dumps({"format": FORMAT} | asdict(self), indent=1, allow_nan=False)
        write_whole(Path(folder) / FILE, content)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Args:
            folder: The folder with the file.

        Raises:
            LightsaeError: If the file is missing or malformed.

        Example:
            >>> TaskVectorResult.load("nowhere")
            Traceback (most recent call last):
            ...
            lightsae.errors.LightsaeError: nowhere/task_vectors.json is not there
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise LightsaeError(f"{path} is not there")
        try:
            found = json.loads(path.read_text())
            if found["format"] != FORMAT:
                raise LightsaeError(f"{path}: format is {found['format']!r}, expected {FORMAT}")
            result = cls(
                str(found["task"]), int(found["n_layers"]), float(found["scale"]),
                int(found["seed"]),
                {name: _reading(each) for name, each in found["readings"].items()},
                tuple(_arm(each) for each in found["arms"]),
                {
                    rule: {int(number): _arm(each) for number, each in arms.items()}
                    for rule, arms in found["curves"].items()
                },
            )  # fmt: skip
            _require_whole(result)
            return result
        except (OSError, RecursionError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LightsaeError(
                f"{path} is no result of a task vector experiment: {type(error).__name__}: {error}"
            ) from error


def _require_whole(result: TaskVectorResult) -> None:
    """Refuse an experiment without layers or arms, or whose arms are of different sets.

    Raises:
        ValueError: If it is one.
    """
    arms = [*result.arms, *(arm for arms in result.curves.values() for arm in arms.values())]
    if not result.readings or not result.arms:
        raise ValueError("it has no layers or no arms")
    for arm in arms:
        if set(arm.scores) != {result.task, *result.elsewhere}:
            raise ValueError(f"arm {arm.name} has scores of other sets")


def _reading(found: Mapping[str, Any]) -> LayerReading:
    kept, baseline, low, high, rank, d = found["kept"]
    return LayerReading(
        float(found["specificity"]),
        float(found["energy"]),
        EnergyKept(float(kept), float(baseline), float(low), float(high), int(rank), int(d)),
    )


def _arm(found: Mapping[str, Any]) -> Arm:
    scores = {
        str(name): tuple(Proportion(int(right), int(all_)) for right, all_ in draws)
        for name, draws in found["scores"].items()
    }
    flips = {
        str(name): tuple(Flips(int(gained), int(lost)) for gained, lost in draws)
        for name, draws in found.get("flips", {}).items()
    }
    layers = tuple(str(layer) for layer in found["layers"])
    arm = Arm(str(found["name"]), layers, float(found["energy"]), scores, flips)
    if not scores or any(len(draws) != arm.draws or not draws for draws in scores.values()):
        raise ValueError(f"arm {arm.name} has no scores, or not as many of each set")
    return arm
