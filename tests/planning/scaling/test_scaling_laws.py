"""Everything that some runs say, and what they do not say."""

import math

import pytest

from lightsae.errors import LightsaeError
from lightsae.planning.scaling import Run, fit_scaling, flops_per_token

from .planted import KS, LAW, SIZES, joint_loss, planted


def test_every_law_of_a_sweep_over_n_and_k() -> None:
    result = fit_scaling(planted(), d_in=768, draws=50)
    assert result.law.form == "joint" and (result.law.groups, result.law.runs) == (15, 30)
    assert [each.k for each in result.sizes] == [each.k for each in result.compute] == list(KS)
    for each in result.sizes:
        beta = each.law.parameters["beta_n"]
        assert beta.low <= LAW["beta_n"] + LAW["gamma"] * math.log(each.k) <= beta.high
    for at in result.at_k:
        assert at.exponent.value == pytest.approx(-0.17 - 0.042 * math.log(at.k), rel=0.2)
        assert at.irreducible is not None
        assert at.irreducible.value == pytest.approx(math.exp(-2.3) * at.k**-0.085, rel=0.1)
    assert result.law.spread == pytest.approx(0.01, rel=0.5)
    assert [(each.d_sae, each.k) for each in result.held_out] == [(SIZES[-1], k) for k in KS]
    for held in result.held_out:
        assert held.predicted.value == pytest.approx(held.measured, rel=0.1)
    assert [curve.k for curve in result.curves] == list(KS)
    for curve in result.curves:
        for n, loss in zip(curve.d_sae[::20], curve.loss[::20], strict=True):
            assert loss.value == pytest.approx(joint_loss(n, curve.k), rel=0.05)


def test_with_one_length_a_budget_pays_for_the_largest_n_at_its_tokens() -> None:
    flops = 2e6 * flops_per_token(768, 5000, 32)
    result = fit_scaling(planted(), d_in=768, flops=[flops], draws=20)
    assert any("how to divide a budget" in note for note in result.notes)
    at = {each.k: each for each in result.budgets}
    assert not any(each.split for each in result.budgets)
    size = at[32].d_sae.value
    cost = flops_per_token(768, int(size), 32) * result.tokens
    assert cost <= flops < flops_per_token(768, int(size) + 1, 32) * result.tokens
    assert at[32].loss.value == pytest.approx(joint_loss(size, 32), rel=0.03)
    assert not at[32].beyond
    (beyond, *_) = fit_scaling(planted(), d_in=768, flops=[100 * flops], draws=20).budgets
    assert beyond.beyond


def test_with_several_lengths_latents_and_tokens_are_chosen_as_the_closed_form_says() -> None:
    # L = 2 n^-.5 + 3 T^-.4 + .1 with C = 2 d n T, what k costs being nothing beside it.
    runs = [
        Run(f"{n}-{rows}", n, 1, 0, rows, 2 * n**-0.5 + 3 * rows**-0.4 + 0.1)
        for n in (256, 1024, 4096, 16384) for rows in (10**5, 10**6, 10**7)
    ]  # fmt: skip
    flops = 1e14
    result = fit_scaling(runs, d_in=64, flops=[flops], draws=20)
    (split,) = [each for each in result.budgets if each.split]
    product = flops / (2 * 64)
    n = ((0.5 * 2) / (0.4 * 3) * product**0.4) ** (1 / 0.9)
    assert split.d_sae.value == pytest.approx(n, rel=0.01)
    assert split.tokens == pytest.approx(product / n, rel=0.02)
    assert split.loss.value == pytest.approx(
        2 * n**-0.5 + 3 * (product / n) ** -0.4 + 0.1, rel=1e-3
    )
    assert result.budget_laws[0].law.form == "tokens"


def test_laws_over_n_are_of_the_length_with_most_settings() -> None:
    short = [run._replace(tokens=1000, loss=2 * run.loss) for run in planted(ks=(8,))]
    result = fit_scaling([*short, *planted()], d_in=64, draws=20)
    assert result.tokens == 1_000_000 and result.law.groups == 15
    assert any("2 lengths of training" in note for note in result.notes)


def test_multi_topk_pays_for_its_larger_code() -> None:
    flops = [3e6 * flops_per_token(768, 5000, 32)]
    one, four = (fit_scaling(planted(), d_in=768, flops=flops, decoded=each, draws=20)
                 for each in (1, 4))  # fmt: skip
    n = [each.budgets[1].d_sae.value for each in (one, four)]
    assert n[0] - n[1] == pytest.approx(4 * (128 - 32), abs=1)


def test_a_budget_too_small_for_k_latents_is_left_out() -> None:
    result = fit_scaling(planted(), d_in=768, flops=[1e6], draws=20)
    assert result.budgets == ()


def test_losses_without_a_logarithm_are_left_out_and_named() -> None:
    runs = planted()
    broken = [
        runs[0]._replace(loss=float("nan")),
        runs[1]._replace(loss=0.0),
        runs[2]._replace(loss=-1.0),
    ]
    result = fit_scaling([*broken, *runs[3:]], d_in=64, draws=20)
    assert [each.name for each in result.left_out] == [each.name for each in broken]
    assert result.law.runs == 27
    with pytest.raises(LightsaeError, match="none of 3 runs has a loss"):
        fit_scaling(broken, d_in=64)


def test_a_sweep_over_k_alone_says_nothing_about_n() -> None:
    with pytest.raises(LightsaeError, match=r"no scaling law: .*1 dictionary size, needs 2"):
        fit_scaling(planted(sizes=(256,)), d_in=64, draws=20)


def test_an_exponent_that_noise_hides_is_said_to_be_open() -> None:
    flat = [run._replace(loss=run.loss / joint_loss(run.d_sae, run.k)) for run in
            planted(noise=0.2, ks=(8,))]  # fmt: skip
    result = fit_scaling(flat, d_in=64, draws=100)
    assert any("at k = 8 the exponent of n is not determined" in note for note in result.notes)
    assert not any("not determined: its" in n for n in fit_scaling(planted(), d_in=64).notes)


def test_three_sizes_hold_nothing_out() -> None:
    result = fit_scaling(planted(sizes=SIZES[:3], ks=(8,)), d_in=64, draws=20)
    assert result.held_out == () and result.law.form == "size_power"
    assert any("largest n is not predicted" in note for note in result.notes)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"d_in": 0}, "d_in is 0"),
        ({"d_in": 4, "draws": 3}, "draws 3"),
        ({"d_in": 4, "flops": [-1.0]}, r"flops is \[-1.0\]"),
        ({"d_in": 4, "flops": [math.inf]}, r"flops is \[inf\]"),
    ],
)
def test_arguments_out_of_range_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        fit_scaling(planted(), **given)  # type: ignore[arg-type]
