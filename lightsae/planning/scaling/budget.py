"""The size of dictionary that a budget of operations is best spent on."""

import math
from collections.abc import Sequence

import numpy as np

from lightsae.planning.scaling.fit import Fit
from lightsae.planning.scaling.flops import affordable_latents, flops_per_token
from lightsae.planning.scaling.law_types import Budget, Estimate
from lightsae.planning.scaling.laws import Array

_PLACES = 400


def at_fixed_tokens(
    fit: Fit, d_in: int, k: int, tokens: int, flops: float, decoded: int
) -> Budget | None:
    """The largest dictionary that a budget pays for at the tokens of the sweep.

    Args:
        fit: A law over n, or n and k.
        d_in: Width of the activations.
        k: Latents per row.
        tokens: Training rows.
        flops: The budget.
        decoded: See `flops_per_token`.

    Returns:
        None where the budget pays for fewer than k latents.
    """
    latents = affordable_latents(d_in, k, tokens, flops, decoded=decoded)
    if latents < k:
        return None
    size = float(math.floor(latents + 1e-9))
    point = {"n": np.log([size]), "k": np.log([float(k)])}
    return Budget(
        flops=flops, k=k, split=False, d_sae=Estimate(size, size, size), tokens=float(tokens),
        loss=fit.estimates(point)[0], beyond=not _within(fit.groups.logs["n"], math.log(size)),
    )  # fmt: skip


def best_split(fit: Fit, d_in: int, k: int, flops: float, decoded: int) -> Budget | None:
    """N and T that minimise L(n, T) subject to T = flops / flops_per_token(n).

    The Lagrangian of arXiv 2203.15556 (section 3.3) with the operations of a Top-k autoencoder,
    solved on a grid of log n and between its places; the interval is over the draws of the law.

    Args:
        fit: A law over n and T.
        d_in: Width of the activations.
        k: Latents per row.
        flops: The budget.
        decoded: See `flops_per_token`.

    Returns:
        None where the budget pays for no row of k latents.
    """
    most = affordable_latents(d_in, k, 1, flops, decoded=decoded)
    if most <= k:
        return None
    overhead = float(flops_per_token(d_in, 1, decoded) - 2 * d_in)
    places = np.linspace(math.log(k), math.log(most), _PLACES)
    tokens_there = np.log(flops) - np.log(2 * d_in * np.exp(places) + overhead)
    every = np.concatenate([fit.solution.theta[None], fit.draws])
    minima = _minima(places, fit.form.log_loss(every, {"n": places, "T": tokens_there}))
    place = float(minima[0])
    low, high = np.exp(np.percentile(minima[1:], (2.5, 97.5)))
    size = math.exp(place)
    tokens = flops / (2 * d_in * size + overhead)
    point = {"n": np.array([place]), "T": np.log([tokens])}
    within = _within(fit.groups.logs["n"], place) and _within(fit.groups.logs["T"], point["T"][0])
    return Budget(
        flops=flops, k=k, split=True, d_sae=Estimate(size, float(low), float(high)), tokens=tokens,
        loss=fit.estimates(point)[0], beyond=not within,
    )  # fmt: skip


def _minima(places: Array, losses: Array) -> Array:
    """Where each row of losses is least, by the parabola through the least and its neighbours."""
    middle = losses.argmin(axis=1).clip(1, len(places) - 2)
    rows = np.arange(len(losses))
    before, least, after = (losses[rows, middle + step] for step in (-1, 0, 1))
    bend = before - 2 * least + after
    shift = np.where(bend > 0, (before - after) / np.where(bend > 0, 2 * bend, 1.0), 0.0)
    found: Array = places[middle] + shift.clip(-1, 1) * (places[1] - places[0])
    return found


def _within(measured: Array, place: float) -> bool:
    return bool(measured.min() - 1e-9 <= place <= measured.max() + 1e-9)


def default_budgets(d_in: int, sizes: Sequence[tuple[int, int, int]], decoded: int) -> list[float]:
    """Operations of the largest run, and ten times as many.

    Args:
        d_in: Width of the activations.
        sizes: d_sae, k and tokens of each run.
        decoded: Latents decoded per latent of k.

    Example:
        >>> default_budgets(64, [(512, 8, 1000), (64, 8, 1000)], 1)
        [69632000.0, 696320000.0]
    """
    most = max(
        float(flops_per_token(d_in, n, k, decoded=decoded * k)) * tokens for n, k, tokens in sizes
    )
    return [most, 10 * most]
