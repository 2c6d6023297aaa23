"""What is kept of a fitted law."""

from typing import NamedTuple


class Estimate(NamedTuple):
    """A number and its 95% interval; NaN is the end of one without a bound.

    Attributes:
        value: Of the best fit.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


class Law(NamedTuple):
    """A fitted law.

    Attributes:
        form: Name of its form, see `laws.FORMS`.
        formula: The form as it is written; logarithms are natural.
        parameters: By name.
        groups: Settings (n, k, tokens) that it was fitted to.
        runs: Runs in them.
        error: Root mean square of log(measured / law) over the settings.
        spread: Standard deviation of a log loss between seeds; None with one each.
        starts: Starts of the fit.
        agreed: Starts that ended at the same sum of squares.
    """

    form: str
    formula: str
    parameters: dict[str, Estimate]
    groups: int
    runs: int
    error: float
    spread: float | None
    starts: int
    agreed: int


class KLaw(NamedTuple):
    """A law at one k.

    Attributes:
        k: Latents per row.
        law: The law.
    """

    k: int
    law: Law


class AtK(NamedTuple):
    """What the law over n and k says at one k.

    Attributes:
        k: Latents per row.
        exponent: Of n, beta_n + gamma log k.
        irreducible: exp(zeta + eta log k); None where the law has no such term.
    """

    k: int
    exponent: Estimate
    irreducible: Estimate | None


class HeldOut(NamedTuple):
    """A setting of the largest n, beside what the law of the other sizes says of it.

    Attributes:
        d_sae: Latents of the dictionary.
        k: Latents per row.
        measured: Geometric mean of the losses of its seeds.
        predicted: With the interval in which such a mean is expected.
    """

    d_sae: int
    k: int
    measured: float
    predicted: Estimate


class Curve(NamedTuple):
    """A law drawn over n.

    Attributes:
        k: Latents per row.
        d_sae: Places.
        loss: The law there.
    """

    k: int
    d_sae: tuple[float, ...]
    loss: tuple[Estimate, ...]


class Budget(NamedTuple):
    """What a budget of operations is best spent on.

    Attributes:
        flops: The budget, see `flops_per_token`.
        k: Latents per row.
        split: Whether n and the tokens were both chosen; else the tokens are those of the runs, and
            n is the largest that can be paid.
        d_sae: Latents of the dictionary.
        tokens: Training rows.
        loss: Expected loss.
        beyond: Whether this is outside the range of n or tokens that was measured.
    """

    flops: float
    k: int
    split: bool
    d_sae: Estimate
    tokens: float
    loss: Estimate
    beyond: bool
