"""Probes on codes of which each class has latents of its own."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.extras import MissingExtraError
from lightsae.metrics import (
    KSparseProbe,
    LabelledCodes,
    TruncatedProbe,
    k_sparse_probe,
    truncated_probe,
)
from lightsae.metrics.probing import linear_probe
from lightsae.metrics.probing.anova import anova_f
from tests.metrics import references

D_SAE, K = 20, 4
PROBES = [TruncatedProbe, KSparseProbe]


def codes(n: int, seed: int, n_classes: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Latent 3 + c fires on class c, weaker than noise on the others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(n_classes, (n,), generator=generator)
    dense = torch.rand(n, D_SAE, generator=generator, dtype=torch.float64)
    dense = dense * (torch.rand(n, D_SAE, generator=generator) < 0.15)
    dense[:, 19] = 0
    told = torch.rand(n, generator=generator) < 0.8
    dense[told, 3 + labels[told]] += 0.4
    return *dense.topk(K, dim=1), labels


def train() -> LabelledCodes:
    return LabelledCodes(*codes(300, seed=0), d_sae=D_SAE)


def dense(given: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return references.dense(given[0], given[1], D_SAE)


def test_the_truncated_probe_on_test_rows() -> None:
    test, ks = codes(200, seed=1), (1, 2, 4)
    curve = truncated_probe(*test, train=train(), k=ks)
    fit = dense(codes(300, seed=0))
    expected = [
        references.probe_accuracy(
            references.truncated(fit, k), train().labels,
            references.truncated(dense(test), k), test[2],
        )
        for k in ks
    ]  # fmt: skip
    assert curve.top1.tolist() == pytest.approx(expected, abs=0.01)
    assert curve.top1[-1] > 0.6
    assert curve.converged


def test_the_area_is_over_k_and_flat_where_rows_have_no_more_places() -> None:
    curve = truncated_probe(*codes(200, seed=1), train=train())
    assert curve.k.tolist() == [1, 2, 4, 8, 16, 32]
    assert curve.top1[2:].unique().numel() == 1
    one, two, rest = curve.top1[:3].tolist()
    area = (one + two) / 2 + (two + rest) / 2 * 2 + rest * 28
    assert curve.auc.item() == pytest.approx(area / 31)
    assert curve.top1_at_32 == curve.top1[-1]


def test_a_single_point_is_its_own_area() -> None:
    curve = truncated_probe(*codes(50, seed=1), train=train(), k=[32])
    assert curve.auc == curve.top1_at_32 == curve.top1[0]


def test_the_sparse_probe_takes_the_latents_of_the_largest_f() -> None:
    test, ks = codes(200, seed=1), (1, 2, 4)
    curve = k_sparse_probe(*test, train=train(), k=ks)
    fit = dense(codes(300, seed=0))
    f = references.anova_f(fit, train().labels)
    best = sorted(range(D_SAE), key=lambda latent: (-f[latent], latent))[:4]
    assert curve.latents.tolist() == best
    assert set(best) == {3, 4, 5, 6}
    expected = [
        references.probe_accuracy(
            fit[:, best[:k]], train().labels, dense(test)[:, best[:k]], test[2]
        )
        for k in ks
    ]
    assert curve.top1.tolist() == pytest.approx(expected, abs=0.01)


def best_with(activations: Tensor) -> list[int]:
    """Latents by what they tell, with one more that has these activations on 300 rows."""
    values, indices, labels = codes(300, seed=0)
    values = torch.cat([values, activations[:, None].double()], dim=1)
    indices = torch.cat([indices, torch.full((300, 1), D_SAE)], dim=1)
    fit = LabelledCodes(values, indices, labels, D_SAE + 1)
    return k_sparse_probe(values, indices, labels, train=fit, k=[D_SAE + 1]).latents.tolist()


def test_a_latent_that_tells_everything_comes_first_and_a_silent_one_last() -> None:
    labels = codes(300, seed=0)[2]
    assert best_with(1.0 + labels)[0] == D_SAE
    assert best_with(1.0 + labels)[-1] == 19


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, 12345.678])
def test_a_latent_that_is_the_same_on_all_rows_tells_nothing(value: float) -> None:
    """Differences of sums leave rounding of it, whose share between classes may be any number."""
    assert best_with(torch.full((300,), value))[-2:] == [19, D_SAE]


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3])
def test_a_latent_of_equal_activations_within_each_class_comes_first(value: float) -> None:
    labels = codes(300, seed=0)[2]
    for activations in (value * (1.0 + labels), value * (labels == 2)):
        assert best_with(activations)[0] == D_SAE


def test_f_is_that_of_scikit_learn() -> None:
    f_classif = import_module("sklearn.feature_selection").f_classif
    fit = LabelledCodes(*codes(300, seed=0)[:2], 7 * codes(300, seed=0)[2] - 9, D_SAE)
    expected, _ = f_classif(dense(codes(300, seed=0))[:, :19].numpy(), fit.labels.numpy())
    assert anova_f(fit)[:19].tolist() == pytest.approx(expected.tolist(), rel=1e-10)
    assert anova_f(fit)[19].isnan()


def test_pooled_entries_are_rows_too() -> None:
    values, indices, labels = codes(40, seed=1)
    rows = torch.arange(40).repeat_interleave(K)
    for probe in (truncated_probe, k_sparse_probe):
        whole = probe(values, indices, labels, train=train(), k=[2])
        flat = values.flatten(), indices.flatten(), labels
        assert torch.equal(probe(*flat, rows, train=train(), k=[2]).top1, whole.top1)


@pytest.mark.parametrize("probe", PROBES)
def test_a_class_that_was_not_trained_on_is_not_found(probe: Callable[..., Any]) -> None:
    metric = probe(train(), [2])
    values, indices, labels = codes(10, seed=1)
    metric.update(values, indices, torch.full_like(labels, 77))
    assert metric.compute().top1.tolist() == [0.0]


@pytest.mark.parametrize("probe", PROBES)
def test_a_fit_that_does_not_end_is_said(
    probe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_probe, "_MAX_ITERATIONS", 1)
    metric = probe(train(), [4])
    metric.update(*codes(10, seed=1))
    assert not metric.compute().converged


@pytest.mark.parametrize("probe", PROBES)
def test_silent_training_rows_give_a_probe_that_knows_nothing(probe: Callable[..., Any]) -> None:
    values, indices, labels = codes(50, seed=0)
    metric = probe(LabelledCodes(torch.zeros_like(values), indices, labels, D_SAE), [1, 2])
    metric.update(values, indices, labels)
    assert (metric.compute().top1 < 0.6).all()


@pytest.mark.parametrize("probe", PROBES)
def test_what_cannot_be_fitted_is_named(probe: Callable[..., Any]) -> None:
    values, indices, labels = codes(5, seed=0)
    one = LabelledCodes(values, indices, torch.zeros_like(labels), D_SAE)
    with pytest.raises(LightsaeError, match="fewer than two classes"):
        probe(one, [1])
    with pytest.raises(LightsaeError, match=r"k = \[2, 1\], expected at least one, ascending"):
        probe(train(), [2, 1])


def test_more_latents_than_there_are_are_refused() -> None:
    with pytest.raises(LightsaeError, match="k = 21 is larger than d_sae = 20"):
        KSparseProbe(train(), [1, 21])


@pytest.mark.parametrize("probe", PROBES)
def test_without_scikit_learn_the_extra_is_named(
    probe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = train()

    def missing(name: str) -> ModuleType:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(name="sklearn")
        return import_module(name)

    monkeypatch.setattr("lightsae.extras.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'lightsae\[evaluation\]'"):
        probe(fit, [1])
