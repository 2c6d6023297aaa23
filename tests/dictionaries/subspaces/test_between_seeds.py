"""Spans of sets of latents compared between seeds."""

import math

import pytest
import torch

from lightsae.dictionaries import compare_spans, effective_rank, span, subspace_overlap
from lightsae.errors import LightsaeError

D = 24


def inside(basis: torch.Tensor, count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, len(basis)), dim=1) @ basis


def test_latents_of_one_subspace_span_it_in_every_seed() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(D, 4)).Q.T
    groups = [inside(basis, 30) for _ in range(3)]
    others = [torch.nn.functional.normalize(torch.randn(60, D), dim=1) for _ in range(3)]
    found = compare_spans(groups, others, torch.eye(D), energy=1.0, draws=20)
    assert found.counts == (30, 30, 30) and found.ranks == (4, 4, 4)
    assert found.effective_ranks == pytest.approx([effective_rank(each) for each in groups])
    assert found.overlap.mean == pytest.approx(1) and found.overlap.seeds == 3
    for pair in found.pairs:
        assert pair.expected == 4 / D and pair.random[0] < 4 / D < pair.random[1]
        assert pair.angles == pytest.approx([0] * 4, abs=1e-6)
        # Unrelated directions: of their principal subspaces as random ones.
        assert pair.others is not None and pair.data is not None
        assert pair.others[0] < 0.5 and pair.data[0] == pytest.approx(4 / D, abs=0.1)
        assert pair.others[1] <= pair.others[0] <= pair.others[2]
    assert found.beyond("random").mean == pytest.approx(1 - 4 / D)
    assert found.beyond("others").low > 0.5


def test_directions_that_follow_the_data_share_what_the_data_share() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(D, 3)).Q.T
    covariance = basis.T @ basis + 1e-8 * torch.eye(D)
    groups = [torch.nn.functional.normalize(torch.randn(3, D), dim=1) for _ in range(2)]
    (pair,) = compare_spans(groups, covariance=covariance, energy=1.0, draws=10).pairs
    assert pair.data is not None and pair.data[0] > 0.95 > pair.overlap
    assert pair.others is None and math.isnan(pair.baseline("others"))
    assert compare_spans(groups).beyond("data").seeds == 0


def test_ranks_may_differ_and_the_smaller_counts() -> None:
    first, second = torch.eye(D)[:2], torch.eye(D)[1:6]
    (pair,) = compare_spans([first, second], energy=1.0).pairs
    assert pair.ranks == (2, 5) and pair.overlap == pytest.approx(0.5)
    assert pair.expected == 5 / D and len(pair.angles) == 2


def test_a_span_has_the_share_of_energy_that_is_asked_for() -> None:
    torch.manual_seed(0)
    groups = [torch.randn(40, D) * torch.logspace(0, -2, D) for _ in range(2)]
    found = compare_spans(groups, energy=0.8)
    spans = [span(group, 0.8) for group in groups]
    assert found.ranks == tuple(map(len, spans)) and max(found.ranks) < D
    assert found.pairs[0].overlap == pytest.approx(subspace_overlap(*spans))


def test_seeds_without_such_latents_are_in_no_pair() -> None:
    groups = [torch.eye(D)[:2], torch.zeros(0, D), torch.eye(D)[:3]]
    found = compare_spans(groups, [torch.eye(D)[:1]] * 3)
    assert [pair.seeds for pair in found.pairs] == [(0, 2)] and found.ranks == (2, 0, 3)
    # One direction of the other set does not stand for two.
    assert found.pairs[0].others is None
    assert compare_spans(groups[:2]).overlap.seeds == 0


def test_what_is_drawn_is_seeded() -> None:
    torch.manual_seed(0)
    groups = [torch.randn(4, D) for _ in range(2)]
    call = [compare_spans(groups, groups, torch.eye(D), draws=4, seed=s) for s in (1, 1, 2)]
    assert call[0] == call[1] != call[2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"groups": [torch.eye(D)]}, "groups holds 1, expected two seeds or more"),
        ({"others": [torch.eye(D)]}, "others holds 1, expected one of 2 seeds each"),
        ({"others": [torch.eye(9)] * 2}, "groups and others have d = 9, 24, expected one width"),
        ({"covariance": torch.eye(3)}, r"covariance is \[3, 3\], expected finite numbers \[24, 24"),
        ({"draws": 1}, "draws = 1, expected at least 2"),
        ({"energy": 1.5}, "energy = 1.5, expected a share"),
    ],
)
def test_other_things_are_refused(change: dict[str, object], told: str) -> None:
    given = {"groups": [torch.eye(D)] * 2, **change}
    with pytest.raises(LightsaeError, match=told):
        compare_spans(given.pop("groups"), **given)  # type: ignore[arg-type]
