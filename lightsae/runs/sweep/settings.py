"""The `sweep:` section of a configuration, checked."""

import math
from dataclasses import dataclass, fields
from typing import Any

from lightsae.errors import LightsaeError


@dataclass(frozen=True)
class SweepSettings:
    """A grid of autoencoders; what is left out has the value that the configuration gives it.

    The baseline without a regularizer trains beside every other, for each k, d_sae, lr and seed.

    Attributes:
        k: Latents per row.
        d_sae: Sizes of the dictionary.
        regularizer: Class names or paths, or class_path and init_args; null is the baseline.
        weight: lambda, for every regularizer.
        lr: Learning rates, given to the optimizer as `lr`.
        seed: Seeds of the weights. The order of the data has its own, `data.init_args.seed`, which
            all share.
        at_once: Autoencoders of one shape that train at the same time, at most.
        find_lambda: Find the largest admissible lambda by short runs, then train with lambdas
            around it.
        find_share: Share of the epochs, or steps, that these runs take.

    Raises:
        LightsaeError: Naming the key, if a list is empty, has a value twice or one out of range.
    """

    k: list[int] | None = None
    d_sae: list[int] | None = None
    regularizer: list[str | dict[str, Any] | None] | None = None
    weight: list[float] | None = None
    lr: list[float] | None = None
    seed: list[int] | None = None
    at_once: int = 16
    find_lambda: bool = False
    find_share: float = 0.2

    def __post_init__(self) -> None:
        for each in fields(self):
            values = getattr(self, each.name)
            if isinstance(values, list):
                _require_distinct(each.name, values)
        for name, least in (("k", 1), ("d_sae", 1), ("seed", 0)):
            for value in getattr(self, name) or ():
                if value < least:
                    raise LightsaeError(f"sweep.{name}: {value}, expected at least {least}")
        for name in ("weight", "lr"):
            for value in getattr(self, name) or ():
                if not 0 < value < math.inf:
                    more = "; the baseline needs none" if name == "weight" else ""
                    raise LightsaeError(f"sweep.{name}: {value}, expected a positive number{more}")
        if self.at_once < 1:
            raise LightsaeError(f"sweep.at_once: {self.at_once}, expected at least 1")
        if not 0 < self.find_share <= 1:
            raise LightsaeError(
                f"sweep.find_share: {self.find_share}, expected more than 0 and at most 1"
            )
        if self.find_lambda and self.weight is not None:
            raise LightsaeError("sweep.weight: find_lambda finds it, leave one of the two out")


def _require_distinct(name: str, values: list[Any]) -> None:
    if not values:
        raise LightsaeError(f"sweep.{name}: the list is empty, expected at least one value")
    # Numbers are told apart as names of folders tell them.
    told = [f"{value:.12g}" if isinstance(value, float) else value for value in values]
    for place, value in enumerate(told):
        if value in told[:place]:
            shown = "null" if value is None else value
            raise LightsaeError(f"sweep.{name}: {shown} is given twice")
