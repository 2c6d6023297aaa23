"""Laws that were planted are found again, with intervals that hold them."""

import math

import numpy as np
import pytest

from lightsae.planning.scaling.fit import fit_law
from lightsae.planning.scaling.groups import grouped
from lightsae.planning.scaling.laws import FORMS

from .planted import LAW, SIZES, joint_loss, planted


def test_the_joint_law_is_that_of_the_paper_at_every_point() -> None:
    theta = np.array([LAW[name] for name in FORMS["joint"].parameters])
    for n in (256, 777, 10**6):
        for k in (1, 8, 100):
            logs = {"n": np.log([float(n)]), "k": np.log([float(k)])}
            found = math.exp(FORMS["joint"].log_loss(theta, logs)[0])
            assert found == pytest.approx(joint_loss(n, k), rel=1e-12)


def test_without_noise_the_parameters_are_exact() -> None:
    fit, reason = fit_law("joint", grouped(planted(noise=0.0)), draws=20)
    assert fit is not None and reason == ""
    for name, estimate in fit.law().parameters.items():
        assert estimate.value == pytest.approx(LAW[name], abs=1e-5), name
    assert fit.law().error < 1e-7
    assert fit.law().agreed >= 2


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if len(form.terms) == 1])
def test_forms_without_an_irreducible_loss_are_regressions_in_logarithms(name: str) -> None:
    form = FORMS[name]
    generator = np.random.default_rng(1)
    groups = grouped(planted())
    groups.logs["C"] = groups.logs["n"] + 3
    theta = generator.normal(size=len(form.parameters))
    (columns,) = form.columns(groups.logs)
    altered = groups._replace(log_loss=columns @ theta + generator.normal(size=len(columns)))
    fit, _ = fit_law(name, altered, draws=20)
    expected = np.linalg.lstsq(columns, altered.log_loss, rcond=None)[0]
    assert fit is not None
    assert fit.solution.theta == pytest.approx(expected, abs=1e-6)


def test_intervals_hold_the_planted_law_about_as_often_as_they_say() -> None:
    held = total = 0
    for seed in range(20):
        fit, _ = fit_law("joint", grouped(planted(seed)), draws=100)
        assert fit is not None and fit.form.name == "joint"
        for name, each in fit.law().parameters.items():
            held += each.low <= LAW[name] <= each.high
            total += 1
    # 95% of 120, which are not independent: six of each set.
    assert total == 120 and 0.88 <= held / total <= 1


def test_the_interval_of_what_is_measured_holds_new_runs() -> None:
    inside = 0
    for seed in range(20):
        known = grouped(planted(seed, sizes=SIZES[:-1]))
        fit, _ = fit_law("joint", known, draws=100)
        assert fit is not None
        new = grouped(planted(seed + 100, sizes=SIZES[-1:], ks=(32,)))
        (told,) = fit.estimates(new.logs, measured=True)
        inside += told.low <= math.exp(new.log_loss[0]) <= told.high
    assert inside >= 17


def test_one_seed_more_or_less_of_a_setting_weighs_as_much_as_it_has_runs() -> None:
    runs = planted(noise=0.05)
    doubled, _ = fit_law("joint", grouped([*runs, *runs]), draws=20)
    plain, _ = fit_law("joint", grouped(runs), draws=20)
    assert doubled is not None and plain is not None
    assert doubled.solution.theta == pytest.approx(plain.solution.theta, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "sizes", "ks", "taken", "told"),
    [
        ("joint", SIZES[:2], (8, 32, 128), "joint_power", "2 dictionary sizes, needs 3"),
        ("joint", SIZES[:3], (8, 32), "joint_power", "6 settings, needs 7"),
        ("joint", SIZES[:2], (8, 32), "additive", "4 settings, needs 5"),
        ("size", SIZES[:3], (8,), "size_power", "3 settings, needs 4"),
    ],
)
def test_too_few_sizes_take_a_smaller_form_and_say_why(
    name: str, sizes: tuple[int, ...], ks: tuple[int, ...], taken: str, told: str
) -> None:
    fit, reason = fit_law(name, grouped(planted(sizes=sizes, ks=ks)), draws=20)
    assert fit is not None and fit.form.name == taken
    assert told in reason and FORMS[taken].formula in reason and "\n" not in reason


def test_two_sizes_of_one_k_determine_no_law() -> None:
    fit, reason = fit_law("size", grouped(planted(sizes=SIZES[:2], ks=(8,))), draws=20)
    assert fit is None and "2 dictionary sizes, needs 3" in reason


def test_n_and_k_that_rise_together_are_not_told_apart() -> None:
    runs = [run for run in planted(sizes=(256, 1024, 4096, 16384), ks=(8, 32, 128, 512))
            if run.d_sae == 32 * run.k]  # fmt: skip
    fit, reason = fit_law("joint", grouped(runs), draws=20)
    assert fit is None and "n and k do not vary independently" in reason


def test_where_nothing_is_irreducible_the_fit_says_so() -> None:
    runs = [run._replace(loss=run.d_sae**-0.5) for run in planted(ks=(8,))]
    fit, reason = fit_law("size", grouped(runs), draws=20)
    assert fit is not None and fit.form.name == "size_power"
    assert "leave a term at 0" in reason or "not told apart" in reason
    assert fit.law().parameters["beta_n"].value == pytest.approx(-0.5, abs=1e-6)
