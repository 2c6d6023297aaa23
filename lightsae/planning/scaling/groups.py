"""Runs that differ in the seed alone, as one point of a fit."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lightsae.planning.scaling.laws import Array
from lightsae.planning.scaling.runs import Run


class Groups(NamedTuple):
    """Mean log losses over the seeds of each (n, k, T).

    Attributes:
        logs: log n, log k and log T, each [groups]; log C may be added.
        log_loss: Means over seeds, [groups].
        seeds: How many seeds there are, [groups].
        spread: Standard deviation of a log loss between seeds of a group, pooled; None where no
            group has two.
    """

    logs: dict[str, Array]
    log_loss: Array
    seeds: Array
    spread: float | None

    def values(self, variable: str) -> Array:
        """Distinct logarithms of n, k, T or C."""
        found: Array = np.unique(self.logs[variable])
        return found

    def where(self, kept: "np.typing.NDArray[np.bool_]") -> "Groups":
        """Some of the groups."""
        logs = {name: each[kept] for name, each in self.logs.items()}
        return Groups(logs, self.log_loss[kept], self.seeds[kept], self.spread)


def grouped(runs: Sequence[Run]) -> Groups:
    """Groups of runs, ascending in n, k and T.

    Args:
        runs: At least one, with finite positive losses.

    Example:
        >>> groups = grouped([Run("a", 64, 4, 0, 9, 0.2), Run("b", 64, 4, 1, 9, 0.2)])
        >>> groups.seeds.tolist(), groups.spread
        ([2.0], 0.0)
    """
    members: dict[tuple[int, int, int], list[float]] = {}
    for run in runs:
        members.setdefault((run.d_sae, run.k, run.tokens), []).append(run.loss)
    keys = sorted(members)
    losses = [np.log(members[key]) for key in keys]
    spare = sum(len(each) - 1 for each in losses)
    squares = sum(float(np.square(each - each.mean()).sum()) for each in losses)
    return Groups(
        {name: np.log(np.array([key[place] for key in keys], dtype=np.float64))
         for place, name in enumerate("nkT")},
        np.array([each.mean() for each in losses]),
        np.array([float(len(each)) for each in losses]),
        (squares / spare) ** 0.5 if spare else None,
    )  # fmt: skip
