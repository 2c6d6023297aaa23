"""`SteeringOptions`: the grid, the way of steering, the controls."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lightsae.errors import LightsaeError

Kind = Literal["additive", "multiplicative", "clamp"]
Control = Literal["random", "shuffled", "raw"]


@dataclass
class SteeringOptions:
    """How `steer` steers.

    With d_j = +1 for a latent of which there shall be more and -1 for one of which there shall be
    less, and mean_j the mean of latent j where it fires, at every position:

    - additive: f_j + strength d_j mean_j
    - multiplicative: f_j max(0, 1 + strength d_j); strength 1 takes a latent out or doubles it
    - clamp: strength d_j mean_j, whatever it was

    Attributes:
        strengths: Strengths of the grid, at least 0.
        counts: Numbers of latents of the grid, in each layer.
        kind: additive, multiplicative or clamp.
        toward: Label that is steered to: 0 lessens what the latents of label 1 stand for, 1 gives
            more of it.
        layers: Layers that are steered; by default all that have an autoencoder.
        error_term: Add what the autoencoder does not reconstruct back to its output.
        controls: Which controls run beside reconstruction only: random latents of equal density,
            the ranking of shuffled labels, the direction of raw activations.
        n_random: Draws of random latents.
        bootstrap: Resamples of an interval.
        seed: Of draws, shuffles and resamples.

    Raises:
        LightsaeError: If one of them cannot be.

    Example:
        >>> SteeringOptions(strengths=[1.0, 2.0], counts=[1, 4]).cells
        [(1.0, 1), (1.0, 4), (2.0, 1), (2.0, 4)]
        >>> SteeringOptions(strengths=[], counts=[1])
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: strengths is empty, expected at least one
    """

    strengths: Sequence[float]
    counts: Sequence[int]
    kind: Kind = "additive"
    toward: Literal[0, 1] = 0
    layers: Sequence[str] | None = None
    error_term: bool = True
    controls: Sequence[Control] = ("random", "shuffled", "raw")
    n_random: int = 3
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("strengths", "counts"):
            _require_distinct(name, getattr(self, name))
        if not all(math.isfinite(each) and each >= 0 for each in self.strengths):
            raise LightsaeError(f"strengths = {list(self.strengths)}, expected finite, at least 0")
        if not all(each >= 1 and each % 1 == 0 for each in self.counts):
            raise LightsaeError(f"counts = {list(self.counts)}, expected whole, at least 1")
        self.strengths = [float(each) for each in self.strengths]
        self.counts = [int(each) for each in self.counts]
        for name, known in (("kind", get_args(Kind)), ("toward", (0, 1))):
            if getattr(self, name) not in known:
                raise LightsaeError(f"{name} = {getattr(self, name)!r}, expected one of {known}")
        unknown = [each for each in self.controls if each not in get_args(Control)]
        if unknown:
            raise LightsaeError(f"controls: {unknown[0]!r}, expected of {get_args(Control)}")
        for name, least in (("n_random", 1), ("bootstrap", 100), ("seed", 0)):
            if getattr(self, name) < least:
                raise LightsaeError(f"{name} = {getattr(self, name)}, expected at least {least}")
        if self.layers is not None:
            _require_distinct("layers", self.layers)

    @property
    def cells(self) -> list[tuple[float, int]]:
        """The grid: strength and number of latents."""
        return [(strength, count) for strength in self.strengths for count in self.counts]


def _require_distinct(name: str, values: Sequence[object]) -> None:
    if not values:
        raise LightsaeError(f"{name} is empty, expected at least one")
    if len(set(values)) < len(values):
        raise LightsaeError(f"{name} = {list(values)}, expected each once")
