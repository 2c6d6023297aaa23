from itertools import combinations

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.sparse import csr_array
from sklearn.metrics import roc_auc_score

from lightsae.errors import LightsaeError
from lightsae.interventions import contrast, ranking_of_contrast
from lightsae.interventions.finding.rank_sums import p_values, rank_sums

from .planted import PLANTED, labels_of, planted, precision


def random_codes(n: int, d: int, low: float, high: float, seed: int = 0) -> csr_array:
    """Latents that fire on a share of rows, log-uniform from low to high, and on one at least."""
    rng = np.random.default_rng(seed)
    rates = np.exp(rng.uniform(np.log(low), np.log(high), d))
    values = np.where(rng.random((n, d)) < rates, rng.exponential(size=(n, d)), 0)
    return csr_array(values[:, values.any(axis=0)].astype(np.float32))


def permuted(n: int, ones: int, seed: int) -> np.ndarray:
    labels = np.arange(n) < ones
    return np.random.default_rng(seed).permutation(labels).astype(int)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_latents_are_ranked_first(seed):
    case = planted(seed)
    codes = case.codes(3000, seed=seed)
    labels = labels_of(case.model(case.inputs(codes))[:, 0])
    found = contrast(csr_array(codes.numpy()), labels)
    assert precision(found.ranking, case.causal) >= 0.95
    assert case.causal <= set(np.flatnonzero(found.discoveries).tolist())
    ranking = ranking_of_contrast(found, codes)
    assert precision(ranking.latents, case.causal) >= 0.95
    best = ranking.latents[:PLANTED]
    assert torch.equal(ranking.signs[:PLANTED], case.weights[best].sign().float())
    column = codes[:, best[0]]
    assert float(ranking.mean_active[0]) == pytest.approx(float(column[column > 0].mean()))


@pytest.mark.parametrize(
    ("n", "ones", "low", "high"), [(200, 30, 0.005, 0.5), (1000, 10, 0.001, 0.2), (80, 40, 0.1, 1)]
)
def test_permuted_labels_give_no_more_false_discoveries_than_said(n, ones, low, high):
    codes = random_codes(n, 300, low, high)
    # Without a true difference every discovery is false: the rate is that of finding any.
    any_found = [contrast(codes, permuted(n, ones, i)).discoveries.any() for i in range(100)]
    assert np.mean(any_found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)


def test_the_usual_p_values_would_find_rare_latents_everywhere():
    codes = random_codes(1000, 300, 0.001, 0.2)
    dense, found = codes.toarray(), 0
    for i in range(10):
        ones = permuted(1000, 10, i) == 1
        p = scipy.stats.mannwhitneyu(dense[ones], dense[~ones], method="asymptotic").pvalue
        found += bool((scipy.stats.false_discovery_control(p) <= 0.05).any())
    assert found >= 9


def test_figures_are_those_of_the_definitions():
    rng = np.random.default_rng(0)
    codes = np.round(random_codes(60, 20, 0.1, 1).toarray(), 1)
    labels = rng.integers(0, 2, 60)
    found = contrast(torch.from_numpy(codes), torch.from_numpy(labels))
    one, zero = codes[labels == 1].astype(float), codes[labels == 0].astype(float)
    pooled = (one.var(0, ddof=1) * (len(one) - 1) + zero.var(0, ddof=1) * (len(zero) - 1)) / 58
    np.testing.assert_allclose(found.effect, (one.mean(0) - zero.mean(0)) / np.sqrt(pooled))
    aurocs = [roc_auc_score(labels, column) for column in codes.T]
    np.testing.assert_allclose(found.auroc, aurocs)
    counts = [(part > 0).sum(0) for part in (zero, one)]
    np.testing.assert_allclose(found.rates, [counts[0] / len(zero), counts[1] / len(one)])
    odds = [(c + 0.5) / (len(part) - c + 0.5) for c, part in zip(counts, (zero, one), strict=True)]
    np.testing.assert_allclose(found.log_odds, np.log(odds[1] / odds[0]))
    np.testing.assert_allclose(found.q_value, scipy.stats.false_discovery_control(found.p_value))


def test_where_a_latent_always_fires_p_is_the_asymptotic_one_with_ties():
    rng = np.random.default_rng(0)
    values = np.round(rng.exponential(size=(50, 30)), 1) + 0.1
    ones = rng.random(50) < 0.4
    found = p_values(rank_sums(csr_array(values).tocsc(), ones))
    usual = scipy.stats.mannwhitneyu(values[ones], values[~ones], method="asymptotic").pvalue
    np.testing.assert_allclose(found, usual, rtol=1e-9)


def test_p_is_near_that_of_all_permutations_for_latents_that_fire_seldom():
    rng, n, size = np.random.default_rng(3), 12, 5
    subsets = np.array(list(combinations(range(n), size)))
    for _ in range(40):
        values = np.zeros(n)
        values[: rng.integers(1, 6)] = 1
        values *= np.round(rng.exponential(size=n), 1) + 0.1
        ranks = scipy.stats.rankdata(values)
        drawn = subsets[rng.integers(len(subsets))]
        ones = np.isin(np.arange(n), drawn)
        off = np.abs(ranks[subsets].sum(1) - size * (n + 1) / 2)
        exact = (off >= abs(ranks[drawn].sum() - size * (n + 1) / 2) - 1e-9).mean()
        found = p_values(rank_sums(csr_array(values[:, None]).tocsc(), ones))[0]
        assert found == pytest.approx(exact, abs=0.12)


def test_negative_values_rank_below_silence():
    values = np.random.default_rng(0).normal(size=(40, 6))
    values[np.abs(values) < 0.7] = 0
    labels = np.arange(40) % 2
    found = contrast(values, labels)
    np.testing.assert_allclose(found.auroc, [roc_auc_score(labels, v) for v in values.T])


def test_silent_latents_are_no_tests():
    codes = random_codes(40, 10, 0.3, 1).toarray()
    labels = np.arange(40) % 2
    alone = contrast(codes, labels)
    found = contrast(np.pad(codes, ((0, 0), (0, 90))), labels)
    np.testing.assert_array_equal(found.q_value[:10], alone.q_value)
    assert (found.p_value[10:] == 1).all() and (found.q_value[10:] == 1).all()
    assert set(found.ranking[-90:].tolist()) == set(range(10, 100))
    assert len(ranking_of_contrast(found, np.pad(codes, ((0, 0), (0, 90)))).latents) == 10
    nothing = contrast(np.zeros((4, 3)), [0, 1, 0, 1])
    assert not nothing.discoveries.any() and (nothing.auroc == 0.5).all()


def test_a_constant_feature_has_no_effect():
    labels = [1, 0, 0, 0, 0, 0, 0]
    found = contrast(np.full((7, 1), 0.1), labels)
    assert found.effect.tolist() == [0.0] and found.p_value.tolist() == [1.0]


ROWS = np.ones((3, 2))


@pytest.mark.parametrize(
    ("codes", "labels", "message"),
    [
        (ROWS, [1, 1, 1], "labels: no row has label 0, expected rows of both labels"),
        (ROWS, [0, 0, 0], "labels: no row has label 1, expected rows of both labels"),
        (ROWS, [0, 1, 2], "labels: 2 is none, expected 0 or 1 for each row"),
        (ROWS, [0, 1, np.nan], "labels: nan is none, expected 0 or 1 for each row"),
        (ROWS, [0, 1], "labels has shape [2], expected [rows = 3]"),
        (ROWS * np.nan, [0, 1, 1], "codes holds NaN or inf, expected finite numbers"),
        (ROWS[0], [0, 1], "codes has shape [2], expected [rows, d]"),
        (np.ones((0, 2)), [], "labels: no row has label 0, expected rows of both labels"),
    ],
)
def test_mistakes_are_told_in_a_line(codes, labels, message):
    with pytest.raises(LightsaeError) as error:
        contrast(codes, labels)
    assert str(error.value) == message


def test_alpha_and_width_are_checked():
    with pytest.raises(LightsaeError, match=r"^alpha is 5, expected a rate in \(0, 1\)$"):
        contrast(ROWS, [0, 1, 1], alpha=5)
    found = contrast(ROWS, [0, 1, 1])
    with pytest.raises(LightsaeError, match=r"^codes has width 1, expected d_sae = 2$"):
        ranking_of_contrast(found, ROWS[:, :1])
