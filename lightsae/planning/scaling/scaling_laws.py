"""Every law that some runs determine."""

from collections.abc import Sequence

import numpy as np

from lightsae.errors import LightsaeError
from lightsae.planning.scaling.budget import at_fixed_tokens, best_split, default_budgets
from lightsae.planning.scaling.fit import Fit, fit_law
from lightsae.planning.scaling.flops import flops_per_token
from lightsae.planning.scaling.groups import Groups, grouped
from lightsae.planning.scaling.law_types import AtK, Budget, Curve, HeldOut, KLaw
from lightsae.planning.scaling.result import ScalingResult
from lightsae.planning.scaling.runs import Run, usable

_PLACES = 60


def fit_scaling(
    runs: Sequence[Run],
    *,
    d_in: int,
    decoded: int = 1,
    flops: Sequence[float] | None = None,
    draws: int = 500,
    seed: int = 0,
) -> ScalingResult:
    """Fit how the loss falls with the size of the dictionary, k and operations.

    The law over n and k is that of arXiv 2406.04093 (section 3.1.3),

        L(n, k) = exp(alpha + beta_k log k + beta_n log n + gamma log k log n) + exp(zeta + eta log k)

    fitted by least squares of log losses to the runs of one length; where several lengths are
    given, of the one with most settings. Where the runs do not determine it, the largest smaller
    form is fitted and a note says why. A law over n and tokens needs runs of three lengths or more.

    Args:
        runs: Trained autoencoders that differ in d_sae, k, seed and tokens alone.
        d_in: Width of the activations.
        decoded: Latents decoded per latent of k: 1, of `MultiTopK` its multiple.
        flops: Budgets; by default the operations of the largest run, and ten times as many.
        draws: Of the bootstrap that gives intervals; see `bootstrap`.
        seed: Of the bootstrap.

    Raises:
        LightsaeError: If the runs of one length do not determine even a power of n, such as two
            sizes at one k; or if an argument is out of range.
        MissingExtraError: If scipy is not installed.
    """  # noqa: E501
    if d_in < 1 or decoded < 1 or draws < 20:
        raise LightsaeError(
            f"d_in is {d_in}, decoded {decoded}, draws {draws}: expected at least 1, 1 and 20"
        )
    if flops is not None and not all(0 < each < float("inf") for each in flops):
        raise LightsaeError(f"flops is {list(flops)}, expected positive finite numbers")
    kept, left_out = usable(runs)
    if not kept:
        raise LightsaeError(f"none of {len(runs)} runs has a loss that a law can be fitted to")
    scaling = _Scaling(grouped(kept), d_in, decoded, draws, seed)
    budgets = flops or default_budgets(d_in, [(r.d_sae, r.k, r.tokens) for r in kept], decoded)
    return scaling.result(kept, budgets)._replace(left_out=left_out)


class _Scaling:
    """The fits of one data set."""

    def __init__(self, groups: Groups, d_in: int, decoded: int, draws: int, seed: int) -> None:
        self.all, self.d_in, self.decoded = groups, d_in, decoded
        self._draws, self._seed = draws, seed
        self.notes: list[str] = []
        lengths, settings = np.unique(groups.logs["T"], return_counts=True)
        chosen = lengths[settings == settings.max()].max()
        self.groups = groups.where(groups.logs["T"] == chosen)
        self.tokens = round(float(np.exp(chosen)))
        if len(lengths) > 1:
            self.notes.append(
                f"{len(lengths)} lengths of training: L(n, k), L(n) and L(C) are of the runs with "
                f"{self.tokens:,} tokens"
            )

    def result(self, runs: tuple[Run, ...], budgets: Sequence[float]) -> ScalingResult:
        """Fit everything."""
        several = len(self.groups.values("k")) > 1
        fit = self._fit(
            "joint" if several else "size", self.groups, "L(n, k)" if several else "L(n)"
        )
        if fit is None:
            raise LightsaeError(f"no scaling law: {self.notes[-1]}")
        sizes = self._at_each_k("size", self.groups, "L(n)") if several else {self._ks[0]: fit}
        compute = self._at_each_k("compute", self._with_compute(), "L(C)", tell=False)
        lengths = len(self.all.values("T")) > 1
        splits = self._at_each_k("tokens", self.all, "L(n, T)") if lengths else {}
        if not splits:
            self.notes.append(
                "how to divide a budget between latents and tokens is not determined: that takes "
                "runs of 3 lengths or more; n is the largest that it pays for at the same tokens"
            )
        held_out = self._held_out(fit)
        at_k = tuple(fit.at_k(k) for k in self._ks)
        self._tell_open(at_k)
        return ScalingResult(
            self.d_in, self.decoded, self.tokens, runs, (), tuple(self.notes), fit.law(), at_k,
            _laws(sizes), _laws(compute), _laws(splits), held_out,
            self._budgets(fit, splits, budgets), self._curves(fit),
        )  # fmt: skip

    @property
    def _ks(self) -> list[int]:
        return [round(float(np.exp(each))) for each in self.groups.values("k")]

    def _fit(self, form: str, groups: Groups, told: str, *, tell: bool = True) -> Fit | None:
        fit, reason = fit_law(form, groups, draws=self._draws, seed=self._seed)
        if reason and tell:
            self.notes.append(f"{told}: {reason}" if fit else f"{told} is not fitted: {reason}")
        return fit

    def _at_each_k(
        self, form: str, groups: Groups, told: str, *, tell: bool = True
    ) -> dict[int, Fit]:
        found = {}
        for k in groups.values("k"):
            number = round(float(np.exp(k)))
            here = groups.where(groups.logs["k"] == k)
            fit = self._fit(form, here, f"{told} at k = {number}", tell=tell)
            if fit is not None:
                found[number] = fit
        return found

    def _with_compute(self) -> Groups:
        """The groups with the logarithms of their operations."""
        n, k = (np.exp(self.groups.logs[each]).round().astype(int).tolist() for each in "nk")
        pairs = zip(n, k, strict=True)
        costs = [flops_per_token(self.d_in, a, b, decoded=self.decoded * b) for a, b in pairs]
        logs = {**self.groups.logs, "C": np.log(costs) + np.log(self.tokens)}
        return self.groups._replace(logs=logs)

    def _tell_open(self, at_k: tuple[AtK, ...]) -> None:
        """Name the k at which the exponent is anything, so that nobody extrapolates by it."""
        open_at = [
            str(each.k)
            for each in at_k
            if not (
                each.exponent.high < 0
                and each.exponent.high - each.exponent.low <= 2 * abs(each.exponent.value)
            )
        ]
        if open_at:
            self.notes.append(
                f"at k = {', '.join(open_at)} the exponent of n is not determined: its interval "
                "reaches 0 or is wider than twice its value; do not extrapolate by it"
            )

    def _held_out(self, whole: Fit) -> tuple[HeldOut, ...]:
        """What the law of all n but the largest says of the largest."""
        largest = self.groups.logs["n"] == self.groups.logs["n"].max()
        form = "size" if len(self._ks) == 1 else "joint"
        fit, reason = fit_law(form, self.groups.where(~largest), draws=self._draws, seed=self._seed)
        if fit is None:
            self.notes.append(f"the largest n is not predicted from the others: {reason}")
            return ()
        if fit.form.name != whole.form.name:
            self.notes.append(f"without the largest n, {reason}")
        points = self.groups.where(largest)
        n, k = (np.exp(points.logs[each]) for each in "nk")
        told = fit.estimates(points.logs, measured=True)
        return tuple(
            HeldOut(round(float(a)), round(float(b)), float(np.exp(loss)), each)
            for a, b, loss, each in zip(n, k, points.log_loss, told, strict=True)
        )

    def _budgets(
        self, fit: Fit, splits: dict[int, Fit], budgets: Sequence[float]
    ) -> tuple[Budget, ...]:
        found = []
        for flops in budgets:
            for k in self._ks:
                decoded = self.decoded * k
                split = best_split(splits[k], self.d_in, k, flops, decoded) if k in splits else None
                fixed = at_fixed_tokens(fit, self.d_in, k, self.tokens, flops, decoded)
                found += [each for each in (fixed, split) if each is not None]
        return tuple(found)

    def _curves(self, fit: Fit) -> tuple[Curve, ...]:
        """Over the range of n, and twice beyond it."""
        n = self.groups.logs["n"]
        places = np.linspace(n.min(), n.max() + np.log(2), _PLACES)
        return tuple(
            Curve(
                k,
                tuple(np.exp(places).tolist()),
                fit.estimates({"n": places, "k": np.full(_PLACES, np.log(k))}),
            )
            for k in self._ks
        )


def _laws(fits: dict[int, Fit]) -> tuple[KLaw, ...]:
    return tuple(KLaw(k, fit.law()) for k, fit in fits.items())
