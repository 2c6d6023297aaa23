"""What a law might have been, had its runs come out otherwise."""

import numpy as np

from lightsae.planning.scaling.laws import Array
from lightsae.planning.scaling.least_squares import Problem, Solution

_LEAST_SPARE = 0.01
_STEPS = 60
_DAMPING = (1e-12, 1e12)


def bootstrap(
    problem: Problem, solution: Solution, inner: Array, draws: int, seed: int
) -> tuple[Array, Array]:
    """A wild bootstrap over groups of seeds (ours in its details).

    To the fitted log loss of each group its own residual is added, times a number drawn from a
    normal distribution, and the law is fitted again. All seeds of a group share the number: what
    the law does not follow counts as error, not only what differs between seeds. Residuals are
    divided by sqrt(1 - leverage), and those of a draw by sqrt(chi2 / degrees of freedom), as in
    Student's t.

    Args:
        problem: What was fitted.
        solution: The fit.
        inner: Its parameters in the basis of the problem, [p].
        draws: How many.
        seed: Of the generator.

    Returns:
        Parameters of the law [draws, p], and errors of a group's mean log loss [draws].
    """
    generator = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(solution.jacobian)
    spare = np.maximum(1 - np.square(basis).sum(axis=1), _LEAST_SPARE)
    errors = solution.residuals / np.sqrt(spare) / problem.weights
    freedom = len(errors) - len(inner)
    factor = np.sqrt(freedom / generator.chisquare(freedom, draws))
    noise = factor * generator.standard_normal(draws) * generator.choice(errors, draws)
    altered = factor[:, None] * errors * generator.standard_normal((draws, len(errors)))
    ends = _minima(problem, inner, problem.log_loss(inner) + altered)
    return problem.theta(ends), noise


@np.errstate(over="ignore", invalid="ignore")  # a step too far, which is not taken
def _minima(problem: Problem, start: Array, log_loss: Array) -> Array:
    """Levenberg and Marquardt's method for many data sets at once, [draws, p]."""
    inner = np.tile(start, (len(log_loss), 1))
    damping = np.full(len(log_loss), 1e-3)
    residuals = problem.weights * (log_loss - problem.log_loss(inner))
    cost = np.square(residuals).sum(axis=1)
    for _ in range(_STEPS):
        jacobian = problem.jacobian(inner)
        normal = np.swapaxes(jacobian, 1, 2) @ jacobian
        normal += damping[:, None, None] * np.eye(len(start)) * (normal + 1e-12)
        slope = (residuals[:, None, :] @ jacobian)[:, 0]
        tried = inner + np.linalg.solve(normal, slope[..., None])[..., 0]
        left = problem.weights * (log_loss - problem.log_loss(tried))
        found = np.square(left).sum(axis=1)
        better = found < cost
        settled = np.abs(cost - found) <= 1e-9 * cost
        inner[better], residuals[better], cost[better] = tried[better], left[better], found[better]
        damping = np.clip(np.where(better, damping / 5, damping * 4), *_DAMPING)
        if settled.all():
            break
    return inner
