"""Spans, effective ranks, overlaps and principal angles of known subspaces."""

import math

import pytest
import torch

from lightsae.dictionaries import (
    effective_rank,
    participation_ratio,
    principal_angles,
    random_overlap,
    span,
    subspace_overlap,
)
from lightsae.errors import LightsaeError

EYE = torch.eye(8, dtype=torch.float64)


def turned(seed: int = 0, d: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator)).Q


def with_spectrum(values: list[float], rows: int = 20) -> torch.Tensor:
    left = turned(1, rows)[:, : len(values)]
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ turned()[: len(values)]


@pytest.mark.parametrize("rows", [5, 20])
@pytest.mark.parametrize(
    ("energy", "rank"), [(1.0, 4), (0.999, 3), (0.9, 2), (0.5, 1), (14 / 14.01 + 1e-6, 4)]
)
def test_a_span_holds_its_share_of_the_energy(rows: int, energy: float, rank: int) -> None:
    W = with_spectrum([3.0, 2.0, 1.0, 0.1], rows)
    basis = span(W, energy)
    assert basis.shape == (rank, 8)
    torch.testing.assert_close(basis @ basis.T, torch.eye(rank, dtype=torch.float64))
    held = (W @ basis.T).square().sum() / W.square().sum()
    assert held >= energy - 1e-9
    assert energy == 1 or (W @ basis[:-1].T).square().sum() / W.square().sum() < energy


def test_what_float32_does_not_tell_from_zero_is_no_dimension() -> None:
    assert len(span(with_spectrum([1.0, 1e-9]).float())) == 1
    assert len(span(with_spectrum([1.0, 1e-4]).float())) == 2
    # A low-rank matrix that was kept in float32 has its rank, with more and with fewer rows than d.
    assert [len(span(with_spectrum([2.0, 1.0, 0.5], n).float())) for n in (3, 5, 30)] == [3, 3, 3]


@pytest.mark.parametrize("size", [1e-200, 1e200])
@pytest.mark.parametrize("rows", [5, 20])
def test_directions_of_any_size_span_the_same(rows: int, size: float) -> None:
    W = with_spectrum([3.0, 2.0, 1.0], rows)
    assert span(size * W).shape == (3, 8)
    assert effective_rank(size * W) == pytest.approx(effective_rank(W))
    assert participation_ratio(size * W) == pytest.approx(participation_ratio(W))


def test_nothing_spans_nothing() -> None:
    for W in (torch.zeros(0, 4), torch.zeros(3, 4), torch.zeros(9, 4)):
        assert span(W).shape == (0, 4)
        assert effective_rank(W) == participation_ratio(W) == 0
    assert math.isnan(subspace_overlap(span(torch.zeros(3, 8)), EYE[:2]))
    assert len(principal_angles(EYE[:0], EYE[:2])) == 0


@pytest.mark.parametrize("rows", [5, 20])
def test_effective_ranks_of_known_spectra(rows: int) -> None:
    equal = with_spectrum([2.0, 2.0, 2.0, 2.0], rows)
    assert effective_rank(equal) == pytest.approx(4)
    assert participation_ratio(equal) == pytest.approx(4)
    uneven = with_spectrum([math.sqrt(0.7), math.sqrt(0.2), math.sqrt(0.1)], rows)
    entropy = -sum(p * math.log(p) for p in (0.7, 0.2, 0.1))
    assert effective_rank(uneven) == pytest.approx(math.exp(entropy))
    assert participation_ratio(uneven) == pytest.approx(1 / (0.49 + 0.04 + 0.01))


def test_overlap_of_equal_orthogonal_and_rotated_subspaces() -> None:
    A = turned()[:3]
    rotated = turned(1, 3) @ A
    assert subspace_overlap(A, rotated) == pytest.approx(1)
    assert subspace_overlap(A, turned()[3:]) == pytest.approx(0)
    assert subspace_overlap(A, turned()[2:]) == pytest.approx(1 / 3)
    # The smaller in the larger.
    assert subspace_overlap(A[:2], rotated) == pytest.approx(1)
    assert subspace_overlap(rotated, A[:2]) == pytest.approx(1)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.3, math.pi / 4, 1.2, math.pi / 2])
def test_planes_at_an_angle(angle: float) -> None:
    A = EYE[:2] @ turned()
    B = torch.stack([EYE[0], math.cos(angle) * EYE[1] + math.sin(angle) * EYE[2]]) @ turned()
    expected = torch.tensor([0.0, angle], dtype=torch.float64)
    torch.testing.assert_close(principal_angles(A, B), expected, atol=1e-14, rtol=1e-6)
    torch.testing.assert_close(principal_angles(B, A), expected, atol=1e-14, rtol=1e-6)
    assert subspace_overlap(A, B) == pytest.approx((1 + math.cos(angle) ** 2) / 2)


def test_angles_of_subspaces_of_unequal_rank() -> None:
    A, B = turned(2)[:2], turned(3)[:5]
    for angles in (principal_angles(A, B), principal_angles(B, A)):
        torch.testing.assert_close(angles.cos(), torch.linalg.svdvals(A @ B.T))
    assert subspace_overlap(A, B) == pytest.approx(
        float(principal_angles(A, B).cos().square().mean())
    )


def test_random_subspaces_overlap_by_their_share_of_the_space() -> None:
    for a, b in ((3, 3), (2, 6), (6, 2), (8, 1)):
        found = random_overlap(a, b, 8, draws=300)
        drawn = [subspace_overlap(turned(10 + n)[:a], turned(1000 + n)[:b]) for n in range(300)]
        assert found.expected == max(a, b) / 8
        assert sum(drawn) / 300 == pytest.approx(found.expected, abs=0.03)
        ends = torch.quantile(torch.tensor(drawn), torch.tensor([0.025, 0.975]))
        torch.testing.assert_close(torch.tensor(found[1:]), ends, atol=0.08, rtol=0)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: span(EYE, energy=0), r"energy = 0, expected a share in \(0, 1\]"),
        (lambda: span(EYE[0]), r"directions are \[8\], expected finite numbers \[m, d\]"),
        (lambda: effective_rank(EYE / 0), "expected finite numbers"),
        (lambda: subspace_overlap(2 * EYE, EYE), "the rows of A are not orthonormal"),
        (lambda: subspace_overlap(EYE, EYE[:1].repeat(2, 1)), "the rows of B are not orthonormal"),
        (lambda: subspace_overlap(EYE, torch.eye(3)), "A and B have d = 8 and 3, expected one"),
        (lambda: principal_angles(EYE[0], EYE), r"A is \[8\], expected orthonormal rows \[r, d\]"),
        (lambda: random_overlap(9, 1, 8), "rank_a = 9, expected from 1 to d = 8"),
        (lambda: random_overlap(1, 0, 8), "rank_b = 0, expected from 1 to d = 8"),
        (lambda: random_overlap(1, 1, 8, draws=1), "draws = 1, expected at least 2"),
    ],
)
def test_other_things_are_refused(call, told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        call()
