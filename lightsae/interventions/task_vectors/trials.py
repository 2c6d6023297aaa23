"""Measurements of a model that holds a task vector, or a part of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interventions.task_vectors.layer_sets import LayerSet, ordered
from lightsae.interventions.task_vectors.projection import projected
from lightsae.interventions.task_vectors.proportions import Flips, Proportion
from lightsae.interventions.task_vectors.result import Arm
from lightsae.interventions.task_vectors.task_vector import TaskVector

Measure = Callable[[nn.Module], Mapping[str, Tensor]]


class Answers(NamedTuple):
    """Answers of a model to a set of samples.

    Attributes:
        right: How many are right.
        flips: Those that differ from the base's.
    """

    right: Proportion
    flips: Flips


Scores = dict[str, Answers]


@dataclass
class Trials:
    """Measurements of a model with a vector in it, each made once.

    Attributes:
        model: The base model.
        vector: What is put into it.
        measure: Whether each sample is answered rightly, by set.
        scale: Factor of the vector.
        task: Name of one set.
        tick: Called after each measurement.
        found: Of sets of layers that held the raw vector what was measured.
        base: Answers of the base model, which is measured first.
    """

    model: nn.Module
    vector: TaskVector
    measure: Measure
    scale: float
    task: str
    tick: Callable[[], None]
    found: dict[LayerSet, Scores] = field(default_factory=dict)
    base: dict[str, Tensor] = field(default_factory=dict)

    def now(self) -> Scores:
        """Right answers of the model as it is, the first time of the base."""
        with torch.no_grad():
            right = {name: _checked(name, each) for name, each in self.measure(self.model).items()}
        if self.task not in right or len(right) < 2:
            known = ", ".join(right) or "nothing"
            raise LightsaeError(f"measure gives {known}, expected {self.task!r} and another set")
        self.base = self.base or right
        sizes, before = ({n: len(each) for n, each in a.items()} for a in (right, self.base))
        if sizes != before:
            raise LightsaeError(f"measure gives {sizes} samples, expected {before} as of the base")
        self.tick()
        return {name: _answers(each, self.base[name]) for name, each in right.items()}

    def raw(self, layers: LayerSet) -> Scores:
        """With the raw vector in some layers."""
        if layers not in self.found:
            with self.vector.injected(self.model, layers, scale=self.scale):
                self.found[layers] = self.now()
        return self.found[layers]

    def filtered(self, bases: Mapping[str, Tensor]) -> tuple[float, Scores]:
        """With the vector projected in every layer, and the share of its energy that is left."""
        part = projected(self.vector, bases)
        with part.injected(self.model, scale=self.scale):
            return part.energy() / self.vector.energy(), self.now()

    def arm(self, name: str, sets: Sequence[LayerSet]) -> Arm:
        """An arm with the raw vector in some layers, of one draw or more."""
        energies = [self.vector.energy(layers) / self.vector.energy() for layers in sets]
        everywhere = {layer for layers in sets for layer in layers}
        return Arm(
            name, ordered(list(self.vector.layers), list(everywhere)),
            sum(energies) / len(energies), *joined([self.raw(layers) for layers in sets]),
        )  # fmt: skip


@contextmanager
def progress_bar(show: bool) -> Iterator[Callable[[], None]]:
    """A counter of measurements on the standard error; yields what moves it."""
    console = Console(stderr=True)
    with Progress(
        *Progress.get_default_columns()[:1], "{task.completed} measured",
        console=console, transient=True, disable=not show or not console.is_terminal,
    ) as progress:  # fmt: skip
        bar: TaskID = progress.add_task("task vector", total=None)
        yield lambda: progress.advance(bar)


def joined(
    draws: Sequence[Scores],
) -> tuple[dict[str, tuple[Proportion, ...]], dict[str, tuple[Flips, ...]]]:
    """Of each set the scores of all draws, and their flips."""
    return (
        {name: tuple(each[name].right for each in draws) for name in draws[0]},
        {name: tuple(each[name].flips for each in draws) for name in draws[0]},
    )


def _checked(name: str, right: Tensor) -> Tensor:
    if right.dtype != torch.bool or right.ndim != 1 or not len(right):
        raise LightsaeError(
            f"measure: {name} is {list(right.shape)} {right.dtype}, expected bool [n], one for "
            "each sample"
        )
    return right.cpu()


def _answers(right: Tensor, base: Tensor) -> Answers:
    flips = Flips(int((right & ~base).sum()), int((~right & base).sum()))
    return Answers(Proportion(int(right.sum()), len(right)), flips)
