"""Synthetic activations are what their truth says, and recovery tells what was found."""

import pytest
import torch

from lightsae.dictionaries import recovery, synthetic_features
from lightsae.errors import LightsaeError


def test_rows_are_made_of_what_the_truth_says() -> None:
    truth = synthetic_features(48, isolated=20, groups=2, group_rank=6, noise=0.0)
    x, amounts, parts = truth.sample(300)
    expected = amounts @ truth.directions
    for group in range(2):
        expected = expected + parts[:, group] @ truth.bases[group]
    torch.testing.assert_close(x, expected, atol=1e-5, rtol=0)
    there = amounts > 0
    assert amounts[there].min() >= 0.5 and amounts.max() <= 1.5


def test_directions_that_fit_are_orthonormal_and_the_others_nearly_so() -> None:
    truth = synthetic_features(32, isolated=16, groups=2, group_rank=8)
    rows = torch.cat([truth.directions, truth.bases.flatten(0, 1)])
    torch.testing.assert_close(rows @ rows.T, torch.eye(32), atol=1e-5, rtol=0)
    torch.testing.assert_close(truth.members.norm(dim=2), torch.ones(2, 16))
    inside = (truth.members @ truth.bases.mT).norm(dim=2)
    torch.testing.assert_close(inside, torch.ones(2, 16))
    many = synthetic_features(256, isolated=700, groups=3, group_rank=4)
    cosines = (many.directions @ many.directions.T).fill_diagonal_(0)
    assert cosines.abs().max() < 0.4
    bases = many.bases
    torch.testing.assert_close(bases @ bases.mT, torch.eye(4).expand(3, 4, 4), atol=1e-5, rtol=0)


def test_frequencies_follow_the_law() -> None:
    truth = synthetic_features(32, isolated=8, groups=1, active=2.0, exponent=1.0)
    law = torch.arange(1, 9).float() ** -1
    torch.testing.assert_close(truth.frequencies, 2 * law / law.sum())
    _, amounts, parts = truth.sample(40_000)
    torch.testing.assert_close((amounts > 0).float().mean(0), truth.frequencies, atol=0.01, rtol=0)
    assert float((parts.norm(dim=2) > 0).float().mean()) == pytest.approx(0.25, abs=0.01)


def test_a_group_prefers_no_direction() -> None:
    truth = synthetic_features(16, isolated=0, groups=1, group_rank=3, group_frequency=1.0)
    parts = truth.sample(60_000).parts[:, 0]
    torch.testing.assert_close(parts.mean(0), torch.zeros(3), atol=0.01, rtol=0)
    second = parts.T @ parts / len(parts)
    torch.testing.assert_close(second, torch.eye(3) * second.trace() / 3, atol=0.01, rtol=0)
    unit = torch.nn.functional.normalize(parts, dim=1)
    # Fourth moments of a uniform direction are 3 / (r (r + 2)) along any axis.
    axes = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0], [1, 1, 1], [1, -2, 0]]), dim=1)
    torch.testing.assert_close(
        (unit @ axes.T).pow(4).mean(0), torch.full((3,), 0.2), atol=0.01, rtol=0
    )


def test_noise_has_its_norm_in_every_row() -> None:
    truth = synthetic_features(64, isolated=4, groups=0, active=1.0, noise=0.3)
    x, amounts, _ = truth.sample(4000)
    noise = (x - amounts @ truth.directions).norm(dim=1)
    assert float(noise.square().mean().sqrt()) == pytest.approx(0.3, rel=0.02)


def test_seeds_tell_directions_and_rows_apart() -> None:
    one, same, other = (synthetic_features(24, isolated=8, groups=1, seed=s) for s in (0, 0, 1))
    assert torch.equal(one.directions, same.directions)
    assert not torch.equal(one.directions, other.directions)
    assert torch.equal(one.sample(5).activations, same.sample(5).activations)
    assert not torch.equal(one.sample(5).activations, one.sample(5, seed=1).activations)


def test_latents_and_subspaces_are_recovered_apart() -> None:
    truth = synthetic_features(48, isolated=10, groups=2, group_rank=6)
    turn = torch.linalg.qr(torch.randn(6, 6)).Q
    found = recovery(torch.cat([3 * truth.directions[:5], turn @ truth.bases[0]]), truth)
    assert found.isolated_share == 0.5 and found.subspace_share == 0.5
    torch.testing.assert_close(found.overlap, torch.tensor([1.0, 0.0]).double())
    assert found.latents.tolist() == [6, 0]
    assert recovery(-truth.directions, truth).isolated_share == 0
    members = recovery(truth.members.flatten(0, 1), truth)
    assert members.member_share == 1 and members.isolated_share == 0
    # Four directions span four of six dimensions.
    few = recovery(turn[:4] @ truth.bases[1], truth)
    torch.testing.assert_close(few.overlap, torch.tensor([0.0, 4 / 6]).double())


def test_a_dictionary_without_latents_has_found_nothing() -> None:
    found = recovery(torch.zeros(0, 64), synthetic_features())
    assert found.isolated_share == found.member_share == found.subspace_share == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"d_in": 1}, "d_in = 1, expected at least 2"),
        ({"isolated": -1}, "isolated = -1, expected at least 0"),
        ({"group_rank": 1}, "group_rank = 1, expected at least 2"),
        ({"group_rank": 65}, "group_rank = 65 is larger than d_in = 64"),
        ({"isolated": 0, "groups": 0}, "isolated and groups are 0, expected a feature"),
        ({"active": 0.0}, "be in a share 0 of rows, expected above 0"),
        ({"active": 20.0}, r"be in a share \d.\d+ of rows, expected above 0 and at most 1"),
        ({"active": float("nan")}, "expected above 0"),
        ({"group_frequency": 1.5}, "group_frequency = 1.5, expected a share from 0 to 1"),
        ({"noise": -1.0}, "noise = -1.0, spread = 0.5"),
        ({"spread": 1.0}, "noise = 0.05, spread = 1.0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, float], told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        synthetic_features(**options)  # type: ignore[arg-type]


def test_other_calls_are_refused() -> None:
    truth = synthetic_features()
    with pytest.raises(LightsaeError, match="rows = 0, expected at least 1"):
        truth.sample(0)
    with pytest.raises(LightsaeError, match=r"W_dec is \[2, 3\], expected \[d_sae, d_in = 64\]"):
        recovery(torch.ones(2, 3), truth)
    with pytest.raises(LightsaeError, match="threshold = 90, expected above 0 and at most 1"):
        recovery(torch.ones(2, 64), truth, threshold=90)
    with pytest.raises(LightsaeError, match="W_dec is a list, expected a tensor"):
        recovery([[1.0]], truth)  # type: ignore[arg-type]
