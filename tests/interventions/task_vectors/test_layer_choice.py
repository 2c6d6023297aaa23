"""Specificity of layers, and sets of them."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from lightsae.errors import LightsaeError
from lightsae.interventions.finding.layer_features import LayerFeatures
from lightsae.interventions.task_vectors.layer_sets import random_sets
from lightsae.interventions.task_vectors.specificity import layer_specificity, ranked_layers


def features(shift: float, seed: int) -> LayerFeatures:
    """Ten latents; two are on more on the task, one is on less."""
    generator = np.random.default_rng(seed)
    codes = generator.uniform(0, 1, (200, 10)).astype(np.float32) + 5
    codes[100:, [3, 7]] += shift
    codes[100:, 5] -= 4.0
    return LayerFeatures(csr_array(codes), codes)


LABELS = [0] * 100 + [1] * 100


def test_score_is_the_mean_effect_of_the_latents_that_are_on_more() -> None:
    found = layer_specificity({"a": features(0.5, 0), "b": features(2.0, 1)}, LABELS, latents=2)
    assert ranked_layers(found) == ["b", "a"]
    for layer, given in (("a", features(0.5, 0)), ("b", features(2.0, 1))):
        assert set(found[layer].latents.tolist()) == {3, 7}
        control, task = given.activations[:100, [3, 7]], given.activations[100:, [3, 7]]
        deviation = np.sqrt((control.var(0, ddof=1) + task.var(0, ddof=1)) / 2)
        expected = ((task.mean(0) - control.mean(0)) / deviation).mean()
        assert found[layer].score == pytest.approx(expected, rel=1e-4)


def test_too_few_latents_or_samples_are_refused() -> None:
    with pytest.raises(LightsaeError, match="latents is 11, layer a has only 10"):
        layer_specificity({"a": features(1.0, 0)}, LABELS, latents=11)
    with pytest.raises(LightsaeError, match="latents is 0"):
        layer_specificity({"a": features(1.0, 0)}, LABELS, latents=0)
    constant = LayerFeatures(csr_array([[0.0], [0.0], [1.0], [1.0]]), np.ones((4, 1)))
    with pytest.raises(LightsaeError, match="layer a: latent 0 does not vary within task"):
        layer_specificity({"a": constant}, [0, 0, 1, 1], latents=1)


def test_random_sets_are_different_and_without_the_chosen_one() -> None:
    layers = [str(place) for place in range(12)]
    chosen = ("1", "2", "3")
    found = random_sets(layers, 3, 30, seed=1, without=chosen)
    assert len(set(found)) == 30 and chosen not in found
    assert all(list(each) == sorted(each, key=int) and len(set(each)) == 3 for each in found)
    assert found == random_sets(layers, 3, 30, seed=1, without=chosen)
    assert found != random_sets(layers, 3, 30, seed=2, without=chosen)
    assert len(random_sets(layers, 11, 30, seed=0, without=tuple(layers[:11]))) == 11
    # One set more than draws: none may be left out by its place.
    last = [random_sets(layers, 1, 11, seed=seed) for seed in range(8)]
    assert {len(set(sets)) for sets in last} == {11}
    assert any(("11",) in sets for sets in last)
    each_once = random_sets(layers, 1, 12, seed=0)
    assert [one for (one,) in each_once] == layers
