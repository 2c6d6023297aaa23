import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import MaxAbsScaler

from lightsae.errors import LightsaeError
from lightsae.interventions import (
    LayerFeatures,
    collect_features,
    contrast,
    fit_probe,
    probe_layers,
    ranking_of_probe,
)
from lightsae.interventions.finding import probe as probe_module

from .planted import PLANTED, labels_of, planted, precision


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_latents_are_ranked_first(seed):
    case = planted(seed)
    codes = case.codes(1500, seed=seed)
    labels = labels_of(case.model(case.inputs(codes))[:, 0])
    probe = fit_probe(csr_array(codes.float().numpy()), labels)
    assert probe.converged and probe.mean_auc > 0.98
    assert precision(probe.ranking, case.causal) >= 0.95
    ranking = ranking_of_probe(probe, codes)
    best = ranking.latents[:PLANTED]
    assert torch.equal(best, torch.from_numpy(probe.ranking[:PLANTED]))
    assert torch.equal(ranking.signs[:PLANTED], case.weights[best].sign().float())


def test_folds_are_scaled_by_their_own_rows_and_sparse_features_give_nearly_the_same():
    case = planted()
    codes = case.codes(300).numpy()
    labels = labels_of(case.model(case.inputs(torch.from_numpy(codes)))[:, 0])
    coef = []
    for train, _ in StratifiedKFold(5, shuffle=True, random_state=3).split(labels, labels):
        scaled = MaxAbsScaler().fit_transform(codes[train])
        coef.append(LogisticRegression(tol=1e-8).fit(scaled, labels[train]).coef_[0])
    expected = np.mean(coef, axis=0)
    dense, sparse = (fit_probe(each, labels, seed=3) for each in (codes, csr_array(codes)))
    np.testing.assert_allclose(dense.coef, expected, atol=0.002 * np.abs(expected).max())
    # Of sparse features scikit-learn steps the intercept a hundredth as far.
    np.testing.assert_allclose(sparse.coef, expected, atol=0.05 * np.abs(expected).max())
    np.testing.assert_allclose(sparse.auc, dense.auc, atol=0.01)


@pytest.mark.parametrize("pooling", ["mean_nonzero", "none"])
def test_collected_features_go_into_probes_and_contrasts(pooling):
    case = planted()
    codes = case.codes(1000, 1)
    x = case.inputs(codes)
    labels = labels_of(case.model(x)[:, 0, 0])
    features = collect_features(case.model, {"layer": case.sae}, x.split(300), pooling=pooling)
    row = probe_layers(features, torch.from_numpy(labels))["layer"].row()
    assert row["codes_auc"] > 0.95 and row["raw_auc"] > 0.95
    found = contrast(features["layer"].codes, labels)
    assert precision(found.ranking, case.causal) >= 0.95


def test_wide_indices_and_narrow_floats_are_taken():
    codes, labels = planted().codes(60).bfloat16(), np.arange(60) % 2
    rows = csr_array(codes.float().numpy())
    wide = csr_array(
        (rows.data, rows.indices.astype(np.int64), rows.indptr.astype(np.int64)), shape=rows.shape
    )
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    np.testing.assert_array_equal(fit_probe(wide, labels).coef, fit_probe(rows, labels).coef)
    np.testing.assert_array_equal(contrast(codes, labels).effect, contrast(rows, labels).effect)


def test_same_seed_same_bits():
    case = planted()
    codes = csr_array(case.codes(200).numpy())
    labels = np.arange(200) % 2
    one, two, other = (fit_probe(codes, labels, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(one.coef, two.coef) and np.array_equal(one.auc, two.auc)
    assert not np.array_equal(one.auc, other.auc)


def test_labels_without_meaning_are_not_predicted():
    codes = csr_array(planted().codes(1000).numpy())
    probe = fit_probe(codes, np.random.default_rng(0).integers(0, 2, 1000))
    assert abs(probe.mean_auc - 0.5) < 0.06 and probe.auc.shape == (5,)
    assert probe.sd_auc == pytest.approx(np.std(probe.auc, ddof=1))


def test_a_fit_that_does_not_end_is_told_and_warns_nobody(monkeypatch):
    monkeypatch.setattr(probe_module, "_MAX_ITERATIONS", 2)
    codes = planted().codes(200).numpy()
    assert not fit_probe(codes, np.arange(200) % 2).converged


def test_latents_that_never_fire_are_in_no_ranking():
    codes = np.pad(planted().codes(100).numpy(), ((0, 0), (0, 5)))
    probe = fit_probe(csr_array(codes), np.arange(100) % 2)
    assert (probe.coef[-5:] == 0).all()
    assert int(ranking_of_probe(probe, codes).latents.max()) < codes.shape[1] - 5


def test_layers_have_a_row_each():
    case = planted()
    codes = case.codes(200)
    x = case.inputs(codes)
    labels = labels_of(case.model(x)[:, 0])
    features = {
        "early": LayerFeatures(csr_array(codes.numpy()), x.numpy()),
        "late": LayerFeatures(csr_array(codes.numpy()), np.zeros((200, 2))),
    }
    found = probe_layers(features, labels, seed=1)
    assert list(found) == ["early", "late"]
    row = found["early"].row()
    assert row["codes_auc"] == fit_probe(csr_array(codes.numpy()), labels, seed=1).mean_auc > 0.9
    assert row["raw_auc"] == fit_probe(x, labels, seed=1).mean_auc
    assert row["raw_auc_sd"] == found["early"].raw.sd_auc
    assert found["late"].row()["raw_auc"] == 0.5


def test_mistakes_are_told_in_a_line():
    codes = np.ones((9, 2))
    with pytest.raises(LightsaeError) as error:
        fit_probe(codes, [0] * 6 + [1] * 3)
    assert str(error.value) == "labels: 3 rows with label 1, 5 folds need 5 or more"
    with pytest.raises(LightsaeError, match=r"^folds is 1, expected 2 or more$"):
        fit_probe(codes, [0] * 6 + [1] * 3, folds=1)
    with pytest.raises(LightsaeError, match=r"^folds is 2.5, expected 2 or more$"):
        fit_probe(codes, [0] * 6 + [1] * 3, folds=2.5)
    with pytest.raises(LightsaeError, match=r"^labels: no row has label 1, expected rows of both"):
        fit_probe(codes, [0] * 9)
    with pytest.raises(LightsaeError, match=r"^features holds NaN or inf"):
        fit_probe(codes * np.inf, [0] * 6 + [1] * 3)


def test_a_probe_and_a_contrast_agree_on_signs():
    case = planted(4)
    codes = case.codes(800)
    labels = labels_of(case.model(case.inputs(codes))[:, 0])
    best = list(case.causal)
    signs = np.sign(fit_probe(codes, labels).coef[best])
    np.testing.assert_array_equal(signs, np.sign(contrast(codes, labels).effect[best]))


def test_pieces_of_a_recording_are_in_one_fold():
    # Each recording has a feature of its own and a label by chance: only its other pieces tell it.
    recordings = [f"r{number // 3}" for number in range(120)]
    labels = np.random.default_rng(0).permutation(np.arange(40) % 2).repeat(3)
    own = np.eye(40).repeat(3, axis=0)
    assert fit_probe(own, labels).mean_auc > 0.95
    assert fit_probe(own, labels, groups=recordings).mean_auc == pytest.approx(0.5, abs=0.1)


def test_groups_that_do_not_fit():
    labels, x = np.arange(20) % 2, np.ones((20, 1))
    with pytest.raises(LightsaeError, match="groups: 3, expected 20, one for each row"):
        fit_probe(x, labels, groups=["a"] * 3)
    with pytest.raises(LightsaeError, match="groups: 2 groups with label 0, 5 folds need 5"):
        fit_probe(x, labels, groups=list("ab" * 10)[:10] + list("ba" * 5))
