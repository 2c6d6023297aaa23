"""The size of dictionary that a budget of operations is best spent on."""

import math
from collections.abc import Sequence

import numpy as np

from lightsae.extras import require
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
    solved on a grid of log n and refined; its interval is over the draws of the law.

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
    place = _minimum(fit, fit.solution.theta, (math.log(k), math.log(most)), flops, d_in, overhead)
    drawn = [
        _minimum(fit, theta, (math.log(k), math.log(most)), flops, d_in, overhead)
        for theta in fit.draws
    ]
    low, high = np.exp(np.percentile(drawn, (2.5, 97.5)))
    size = math.exp(place)
    tokens = flops / (2 * d_in * size + overhead)
    point = {"n": np.array([place]), "T": np.log([tokens])}
    within = _within(fit.groups.logs["n"], place) and _within(fit.groups.logs["T"], point["T"][0])
    return Budget(
        flops=flops, k=k, split=True, d_sae=Estimate(size, float(low), float(high)), tokens=tokens,
        loss=fit.estimates(point)[0], beyond=not within,
    )  # fmt: skip


def _minimum(
    fit: Fit, theta: Array, ends: tuple[float, float], flops: float, d_in: int, overhead: float
) -> float:
    """Log n with the least loss along the budget."""

    def losses(places: Array) -> Array:
        tokens = np.log(flops) - np.log(2 * d_in * np.exp(places) + overhead)
        return fit.form.log_loss(theta, {"n": places, "T": tokens})

    places = np.linspace(*ends, _PLACES)
    best = int(losses(places).argmin())
    around = places[max(best - 1, 0)], places[min(best + 1, _PLACES - 1)]
    found = require("scipy.optimize", extra="evaluation").minimize_scalar(
        lambda place: float(losses(np.array([place]))[0]), bounds=around, method="bounded"
    )
    return float(found.x)


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
