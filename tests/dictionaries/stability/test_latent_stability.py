"""Stability of latents, and of random dictionaries beside it."""

import pytest
import torch
from torch import Tensor

from lightsae.dictionaries import Cut, latent_stability, random_stability
from lightsae.dictionaries.stability.baselines import random_directions
from lightsae.errors import LightsaeError


@pytest.mark.parametrize(
    ("change", "stability"),
    [
        (lambda W: W, 1.0),
        (lambda W: W[torch.randperm(len(W))], 1.0),
        (lambda W: -W, 0.0),
        (lambda W: W * torch.linspace(0.01, 100, len(W))[:, None], 1.0),
    ],
    ids=["identity", "permutation", "sign", "scale"],
)
def test_what_a_change_of_the_dictionary_does(change, stability: float) -> None:
    # Orthogonal, so that no other latent resembles the opposite of one.
    W = torch.linalg.qr(torch.randn(16, 16)).Q[:12]
    for shares in latent_stability([W, change(W), change(W)]).shares[:1]:
        assert torch.equal(shares, torch.full((12, 5), stability, dtype=torch.float64))


def test_it_is_the_mean_over_the_other_seeds_of_a_latent_above_the_threshold() -> None:
    decoders = [torch.randn(n, 5, dtype=torch.float64) for n in (7, 9, 4)]
    found = latent_stability(decoders, (0.3, 0.8))
    for s, mine in enumerate(decoders):
        others = [decoders[t] for t in range(3) if t != s]
        for i, row in enumerate(mine):
            best = [max(float(row @ o / row.norm() / o.norm()) for o in other) for other in others]
            torch.testing.assert_close(found.similarity[s][i].tolist(), best)
            for column, tau in enumerate((0.3, 0.8)):
                assert found.shares[s][i, column] == sum(b >= tau for b in best) / 2


def test_a_latent_without_a_direction_has_no_stability() -> None:
    W = torch.eye(3)
    found = latent_stability([W * torch.tensor([[1.0], [0], [1]]), W, W])
    assert found.shares[0].isnan().any(dim=1).tolist() == [False, True, False]
    assert found.shares[1][:, 0].tolist() == [1, 0.5, 1]


def test_the_cut_is_at_a_threshold_that_is_measured() -> None:
    shares = torch.tensor([[0.5, 0.25], [1, 1], [torch.nan, torch.nan]])
    assert Cut(0.5).stable(shares, (0.5, 0.7)).tolist() == [True, True, False]
    assert Cut(0.7).stable(shares, (0.5, 0.7)).tolist() == [False, True, False]
    with pytest.raises(LightsaeError, match=r"cut.threshold = 0.9, expected one of .* 0.5, 0.7"):
        Cut(0.9).stable(shares, (0.5, 0.7))


def test_random_dictionaries_are_found_as_often_as_the_area_of_a_cap_tells() -> None:
    torch.manual_seed(0)
    decoder = torch.randn(2000, 3)
    # On the sphere a cap of height h = 1 - cos has the share h / 2; 50 directions miss it all.
    expected = 1 - (1 - (1 - 0.9) / 2) ** 50
    other = random_directions(torch.randn(50, 3), generator=torch.Generator().manual_seed(1))
    cosines = torch.nn.functional.normalize(decoder, dim=1) @ other.T
    assert abs(float((cosines.amax(1) >= 0.9).float().mean()) - expected) < 0.05
    (mean,) = random_stability([torch.randn(50, 3) for _ in range(40)], (0.9,), draws=5).mean
    assert abs(mean - expected) < 0.02


def test_directions_with_the_decoders_covariance_crowd_where_it_does() -> None:
    torch.manual_seed(0)
    decoder = torch.randn(4000, 6) @ torch.diag(torch.tensor([5.0, 4, 3, 1, 0.5, 0]))
    unit = torch.nn.functional.normalize(decoder, dim=1)
    drawn = random_directions(decoder, "covariance", generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(4000))
    assert drawn[:, 5].abs().max() == 0
    # Unit rows again: their second moments are near those of the decoder's, not equal.
    torch.testing.assert_close(drawn.T @ drawn / 4000, unit.T @ unit / 4000, atol=0.06, rtol=0)
    few = random_directions(decoder[:2], "covariance", generator=torch.Generator().manual_seed(0))
    assert few.shape == (2, 6) and torch.linalg.matrix_rank(torch.cat([few, decoder[:2]])) == 2


def test_random_stability_counts_the_latents_it_is_told_to() -> None:
    decoders = [torch.cat([torch.eye(2, 64), torch.zeros(1, 64)])] * 2
    first = torch.tensor([True, False, False])
    found = random_stability(decoders, (-1.0, 0.99), counted=[first, first])
    assert found.mean == (1, 0) and found.low == (1, 0) and found.high == (1, 0)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda W: latent_stability([W]), "decoders holds 1, expected two seeds or more"),
        (lambda W: latent_stability([W, W[:, :2]]), "differ in width"),
        (lambda W: latent_stability([W, W / 0]), "must be finite"),
        (lambda W: latent_stability([W, W], ()), r"thresholds are \[\], expected some"),
        (lambda W: latent_stability([W, W], (1.5,)), r"thresholds are \[1.5\], expected some"),
        (lambda W: random_stability([W], draws=0), "draws = 0, expected at least 1"),
        (lambda W: random_stability([W], kind="normal"), "kind is 'normal', expected 'uniform' or"),
    ],
)
def test_other_things_are_refused(call, told: str) -> None:
    W: Tensor = torch.eye(3)
    with pytest.raises(LightsaeError, match=told):
        call(W)
