"""What scaling laws are fitted to: the loss that trained autoencoders ended with."""

import math
from collections.abc import Iterable
from typing import NamedTuple


class Run(NamedTuple):
    """One trained autoencoder.

    Attributes:
        name: What it is called.
        d_sae: Latents of the dictionary.
        k: Latents per row.
        seed: Of its weights; of no meaning but to tell runs of one setting apart.
        tokens: Rows that it was trained on, repeated ones counted again.
        loss: Normalised mean squared error, 1 - R2 (that of a mean predictor is 1).
    """

    name: str
    d_sae: int
    k: int
    seed: int
    tokens: int
    loss: float


class LeftOut(NamedTuple):
    """A run that no law is fitted to.

    Attributes:
        name: What it is called.
        reason: Why.
    """

    name: str
    reason: str


def usable(runs: Iterable[Run]) -> tuple[tuple[Run, ...], tuple[LeftOut, ...]]:
    """Runs whose loss has a logarithm, and those that have none.

    Args:
        runs: Any.

    Returns:
        What can be fitted, and what is left out and why.

    Example:
        >>> kept, left_out = usable([Run("a", 64, 4, 0, 100, 0.2), Run("b", 64, 4, 1, 100, 0.0)])
        >>> [run.name for run in kept], left_out[0].reason
        (['a'], 'its loss is 0, expected a finite number above 0')
    """
    kept, left_out = [], []
    for run in runs:
        reason = _reason(run)
        if reason is None:
            kept.append(run)
        else:
            left_out.append(LeftOut(run.name, reason))
    return tuple(kept), tuple(left_out)


def _reason(run: Run) -> str | None:
    if not (math.isfinite(run.loss) and run.loss > 0):
        return f"its loss is {run.loss:g}, expected a finite number above 0"
    for name in ("d_sae", "k", "tokens"):
        if getattr(run, name) < 1:
            return f"its {name} is {getattr(run, name)}, expected at least 1"
    return None
