"""Intervals, the front, the choice and the drawn latents, against plain definitions."""

import itertools

import numpy as np
import pytest
import torch

from lightsae.interventions.steering import Estimate, Measured, Point
from lightsae.interventions.steering.bootstrap import Bootstrap
from lightsae.interventions.steering.choice import best, with_front
from lightsae.interventions.steering.controls import drawn_latents


def point(value: float, damage: float, strength: float = 1.0, count: int = 1) -> Point:
    estimate = Estimate(value, value, value, 0.0, 0.0, 0.0)
    return Point("ranked latents", "choice", {"wer": estimate}, damage, strength, count)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    amounts, counts = torch.randn(900, generator=generator), torch.ones(900)
    found = Bootstrap("test", 4000, 0).estimate(Measured(amounts, counts), Measured(counts, counts))
    error = 1.96 * float(amounts.std()) / 30
    assert found.low == pytest.approx(found.value - error, abs=0.1 * error)
    assert found.high == pytest.approx(found.value + error, abs=0.1 * error)


def test_resamples_of_a_ratio_draw_amounts_and_counts_together() -> None:
    counts = torch.arange(1.0, 51.0)
    found = Bootstrap("choice", 200, 0).estimate(
        Measured(0.25 * counts, counts), Measured(counts, counts)
    )
    assert (found.value, found.low, found.high, found.change) == (0.25, 0.25, 0.25, -0.75)


def test_pairs_have_narrower_intervals_than_their_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    base, ones = torch.randn(400, generator=generator), torch.ones(400)
    found = Bootstrap("test", 500, 0).estimate(
        Measured(base + 0.1 + 0.01 * torch.randn(400, generator=generator), ones),
        Measured(base, ones),
    )
    assert found.change_high - found.change_low < 0.05 * (found.high - found.low)
    assert found.change_low < 0.1 < found.change_high


def test_the_seed_and_the_split_decide_the_resamples() -> None:
    amounts = torch.arange(50.0)
    measured = Measured(amounts, torch.ones(50))

    def low(split: str, seed: int) -> float:
        return Bootstrap(split, 100, seed).estimate(measured, measured).low

    assert low("test", 0) == low("test", 0)
    assert len({low("test", 0), low("choice", 0), low("test", 1)}) == 3


@pytest.mark.parametrize("falls", [True, False])
def test_the_front_is_what_no_other_point_beats(falls: bool) -> None:
    generator = np.random.default_rng(0)
    points = [point(*pair) for pair in generator.integers(0, 6, (40, 2)).astype(float)]
    sign = 1 if falls else -1
    for each in with_front(points, "wer", falls):
        mine = sign * each.metrics["wer"].value, each.damage
        beaten = False
        for other in points:
            pair = sign * other.metrics["wer"].value, other.damage
            beaten |= all(a <= b for a, b in zip(pair, mine, strict=True)) and pair != mine
        assert each.on_front != beaten


def test_the_best_is_the_best_target_within_the_limit_then_the_gentlest() -> None:
    cells = itertools.product([1.0, 2.0], [1, 4])
    same = [point(0.2, 0.5, *cell) for cell in cells]
    points = [point(0.1, 1.5), point(0.4, 0.0), *reversed(same)]
    assert best(points, "wer", True, 1.0) == same[0]
    assert best(points, "wer", True, 2.0) == points[0]
    assert best(points, "wer", False, 1.0) == points[1]
    assert best(points, "wer", True, -1.0) is None


def test_drawn_latents_fire_as_often_and_are_others() -> None:
    generator = np.random.default_rng(0)
    fires = generator.permutation(np.arange(400))
    ranked = generator.choice(400, 30, replace=False)
    found = drawn_latents(fires, ranked, np.random.default_rng(1), "layer")
    assert len(set(found)) == 30
    assert not set(found) & set(ranked)
    assert np.abs(fires[found] - fires[ranked]).max() < 40
    assert not np.array_equal(found, drawn_latents(fires, ranked, np.random.default_rng(2), ""))
