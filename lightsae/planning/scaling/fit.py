"""A law fitted to groups of runs, with what a bootstrap says of it."""

from dataclasses import dataclass

import numpy as np

from lightsae.planning.scaling.bootstrap import bootstrap
from lightsae.planning.scaling.groups import Groups
from lightsae.planning.scaling.law_types import AtK, Estimate, Law
from lightsae.planning.scaling.laws import FORMS, Array, Form, Logs
from lightsae.planning.scaling.least_squares import Problem, Solution
from lightsae.plural import counted

_ILL_CONDITIONED = 1e4
_NO_SHARE = 1e-3
_WORDS = {"n": "dictionary size", "k": "k", "T": "length", "C": "cost"}


@dataclass(frozen=True, eq=False)
class Fit:
    """A law that the data determine.

    Attributes:
        form: Its form.
        groups: What it was fitted to.
        solution: The best fit.
        draws: Parameters of the bootstrap's fits, [draws, p].
        noise: Errors of a group's mean log loss as the bootstrap drew them, [draws].
    """

    form: Form
    groups: Groups
    solution: Solution
    draws: Array
    noise: Array

    def loss(self, logs: Logs) -> Array:
        """Losses at some points, [points]."""
        found: Array = np.exp(self.form.log_loss(self.solution.theta, logs))
        return found

    def estimates(self, logs: Logs, *, measured: bool = False) -> tuple[Estimate, ...]:
        """Losses with their intervals; NaN is the end of one without a bound.

        Args:
            logs: The points.
            measured: The interval of a mean over seeds that is measured there, instead of that of
                the law.
        """
        drawn = self.form.log_loss(self.draws, logs)
        if measured:
            drawn = drawn + self.noise[:, None]
        with np.errstate(over="ignore"):
            ends = np.exp(np.percentile(drawn, (2.5, 97.5), axis=0))
        ends[~np.isfinite(ends)] = np.nan
        return tuple(
            Estimate(*map(float, each)) for each in zip(self.loss(logs), *ends, strict=True)
        )

    def law(self) -> Law:
        """The law as it is kept."""
        theta = self.solution.theta
        low, high = np.percentile(self.draws, (2.5, 97.5), axis=0)
        every = zip(self.form.parameters, theta, low, high, strict=True)
        return Law(
            form=self.form.name,
            formula=self.form.formula,
            parameters={name: Estimate(*map(float, each)) for name, *each in every},
            groups=len(self.groups.log_loss),
            runs=int(self.groups.seeds.sum()),
            error=float(np.sqrt(np.mean(np.square(self.solution.residuals / self._weights)))),
            spread=self.groups.spread,
            starts=self.solution.starts,
            agreed=self.solution.agreed,
        )

    def at_k(self, k: int) -> AtK:
        """Exponent of n and irreducible loss at a k, of a law over n.

        Args:
            k: Latents per row.
        """
        every = np.concatenate([self.solution.theta[None], self.draws])
        own = dict(zip(self.form.parameters, every.T, strict=True))
        exponents = own["beta_n"] + own.get("gamma", 0.0) * np.log(k)
        floors = np.exp(own["zeta"] + own.get("eta", 0.0) * np.log(k)) if "zeta" in own else None
        return AtK(k, _estimate(exponents), None if floors is None else _estimate(floors))

    @property
    def _weights(self) -> Array:
        found: Array = np.sqrt(self.groups.seeds)
        return found


def _estimate(values: Array) -> Estimate:
    """The first value with the interval of the others."""
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return Estimate(float(values[0]), float(low), float(high))


def fit_law(name: str, groups: Groups, *, draws: int, seed: int = 0) -> tuple[Fit | None, str]:
    """Fit a form, or the largest smaller one that the groups determine.

    Intervals are those of `bootstrap`.

    Args:
        name: Of the form, see `laws.FORMS`.
        groups: The data.
        draws: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        The fit, None where none is possible; and why it is not of the form asked for, or "".
    """
    form = FORMS[name]
    reasons: list[str] = []
    while True:
        reason = _too_few(form, groups)
        if not reason:
            problem = Problem(form, groups)
            solution, inner = problem.solve()
            reason = _undetermined(problem, solution, inner)
            if not reason:
                told = f"{'; '.join(reasons)}: fitted {form.formula}" if reasons else ""
                drawn, noise = bootstrap(problem, solution, inner, draws, seed)
                return Fit(form, groups, solution, drawn, noise), told
        reasons.append(reason)
        if not form.smaller:
            return None, "; ".join(dict.fromkeys(reasons))
        form = FORMS[form.smaller]


def _too_few(form: Form, groups: Groups) -> str:
    """Why the form has too many parameters for the data, or ""."""
    floor = any(not set("nTC") & set("".join(m for _, m in term)) for term in form.terms)
    for variable in sorted(form.variables, key="nkTC".index):
        least = 2 if variable == "k" else 3 if floor else 2
        found = len(groups.values(variable))
        if found < least:
            return f"{counted(found, _WORDS[variable])}, needs {least}"
    wanted = len(form.parameters) + 1
    if len(groups.log_loss) < wanted:
        return f"{counted(len(groups.log_loss), 'setting')}, needs {wanted}"
    if not Problem(form, groups).full_rank:
        return "n and k do not vary independently"
    return ""


def _undetermined(problem: Problem, solution: Solution, inner: Array) -> str:
    """Why the data do not tell the parameters of the form, or ""."""
    if problem.shares(inner).max(axis=0).min() < _NO_SHARE:
        return "the least squares leave a term at 0"
    if np.linalg.cond(solution.jacobian) > _ILL_CONDITIONED:
        return "the terms are not told apart"
    return ""
