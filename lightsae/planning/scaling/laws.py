"""The forms of scaling laws: sums of power laws, linear in logarithms term by term.

    L = sum_t exp(sum_j theta_tj m_tj)

where a monomial m is 1 or a product of log n, log k, log T (training rows) and log C (operations).
`JOINT` is the law of arXiv 2406.04093 (section 3.1.3); the others are ours but for what they say.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Logs = Mapping[str, Array]


class Form(NamedTuple):
    """A form of law.

    Attributes:
        name: Short name.
        formula: As it is written.
        terms: Of each term the parameters' names and their monomials: "" is 1, "nk" is
            log n log k.
        smaller: Name of the form to take where the data do not determine this one, or "".
    """

    name: str
    formula: str
    terms: tuple[tuple[tuple[str, str], ...], ...]
    smaller: str = ""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names, term by term."""
        return tuple(name for term in self.terms for name, _ in term)

    @property
    def variables(self) -> frozenset[str]:
        """Which of n, k, T and C it depends on."""
        return frozenset("".join(monomial for term in self.terms for _, monomial in term))

    def columns(self, logs: Logs) -> list[Array]:
        """Of each term the monomials of some points, [points, parameters of the term]."""
        size = len(next(iter(logs.values())))
        return [
            np.stack([_monomial(each, logs, size) for _, each in term], axis=1)
            for term in self.terms
        ]

    def split(self, theta: Array) -> list[Array]:
        """Parameters term by term, along the last axis."""
        ends = np.cumsum([len(term) for term in self.terms])[:-1]
        return np.split(theta, ends, axis=-1)

    def log_terms(self, theta: Array, logs: Logs) -> Array:
        """Logarithm of each term, [..., points, terms]; theta may have leading axes."""
        return np.stack(
            [own @ column.T for own, column in zip(self.split(theta), self.columns(logs),
                                                   strict=True)], axis=-1,
        )  # fmt: skip

    def log_loss(self, theta: Array, logs: Logs) -> Array:
        """Logarithm of the loss, [..., points].

        Example:
            >>> theta, logs = np.array([0.0, -1.0, np.log(0.25)]), {"n": np.log([2.0, 4.0])}
            >>> np.exp(FORMS["size"].log_loss(theta, logs)).round(6).tolist()
            [0.75, 0.5]
        """
        found: Array = np.logaddexp.reduce(self.log_terms(theta, logs), axis=-1)
        return found


def _monomial(monomial: str, logs: Logs, size: int) -> Array:
    found = np.ones(size)
    for variable in monomial:
        found = found * logs[variable]
    return found


_AMPLITUDE = (("alpha", ""), ("beta_k", "k"), ("beta_n", "n"), ("gamma", "nk"))
_SIZE = (("alpha", ""), ("beta_n", "n"))
_COMPUTE = (("alpha", ""), ("beta_c", "C"))
_TOKENS = (("delta", ""), ("beta_t", "T"))
_FLOOR = (("zeta", ""),)

_PRODUCT = "exp(alpha + beta_k log k + beta_n log n + gamma log k log n)"
JOINT = Form(
    "joint", f"{_PRODUCT} + exp(zeta + eta log k)",
    (_AMPLITUDE, (("zeta", ""), ("eta", "k"))), "joint_power",
)  # fmt: skip

FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        JOINT,
        Form("joint_power", _PRODUCT, (_AMPLITUDE,), "additive"),
        Form("additive", "exp(alpha + beta_k log k + beta_n log n)", (_AMPLITUDE[:3],)),
        Form("size", "exp(alpha + beta_n log n) + exp(zeta)", (_SIZE, _FLOOR), "size_power"),
        Form("size_power", "exp(alpha + beta_n log n)", (_SIZE,)),
        # As section 3.1.1 of the paper plots L(C), there along the best n for each C.
        Form("compute", "exp(alpha + beta_c log C) + exp(zeta)", (_COMPUTE, _FLOOR),
             "compute_power"),
        Form("compute_power", "exp(alpha + beta_c log C)", (_COMPUTE,)),
        # The form of arXiv 2203.15556 (section 3.3), with latents in place of parameters.
        Form("tokens", "exp(alpha + beta_n log n) + exp(delta + beta_t log T) + exp(zeta)",
             (_SIZE, _TOKENS, _FLOOR), "tokens_power"),
        Form("tokens_power", "exp(alpha + beta_n log n) + exp(delta + beta_t log T)",
             (_SIZE, _TOKENS)),
    )
}  # fmt: skip
