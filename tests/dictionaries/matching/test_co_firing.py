"""Overlap and correlation of latents of two dictionaries, beside their definitions."""

import pytest
import torch
from torch import Tensor

from lightsae.dictionaries import CoFiring, match_one_to_one
from lightsae.dictionaries.matching import co_firing, firings
from lightsae.errors import LightsaeError
from lightsae.sae import SparseCode

D_SAE, D_OTHER = 11, 7


def random_code(rows: int, k: int, d_sae: int) -> SparseCode:
    """Some latents never, one always; some values zero or less."""
    indices = torch.rand(rows, d_sae - 2).topk(min(k, d_sae - 2)).indices + 1
    values = (torch.rand(indices.shape, dtype=torch.float64) - 0.2) * 3
    return SparseCode(values, indices, d_sae)


def batches() -> list[tuple[SparseCode, SparseCode]]:
    """Ragged, of mixed k, one of them empty."""
    sizes = [(13, 3, 2), (1, 5, 1), (0, 2, 2), (40, 1, 4)]
    return [(random_code(n, k, D_SAE), random_code(n, j, D_OTHER)) for n, k, j in sizes]


def dense(codes: list[SparseCode]) -> Tensor:
    return torch.cat([code.to_dense().clamp(min=0) for code in codes])


def together(pairs: list[tuple[SparseCode, SparseCode]]) -> CoFiring:
    found = CoFiring(D_SAE, D_OTHER)
    for code, other in pairs:
        found.update(code, other)
    return found


def dense_iou(a: Tensor, b: Tensor) -> Tensor:
    """NaN where one of the two never fires."""
    iou = torch.full((a.shape[1], b.shape[1]), torch.nan, dtype=torch.float64)
    for i, j in torch.cartesian_prod(torch.arange(a.shape[1]), torch.arange(b.shape[1])).tolist():
        one, two = a[:, i] > 0, b[:, j] > 0
        if one.any() and two.any():
            iou[i, j] = (one & two).sum() / (one | two).sum()
    return iou


def dense_correlation(a: Tensor, b: Tensor) -> Tensor:
    """NaN where one of the two does not vary."""
    a, b = (each - each.mean(dim=0) for each in (a, b))
    return (a.T @ b) / (a.norm(dim=0)[:, None] * b.norm(dim=0))


def nearest(scores: Tensor) -> tuple[Tensor, Tensor]:
    none = scores.isnan().all(dim=1)
    best, index = scores.nan_to_num(-torch.inf).max(dim=1)
    return best.where(~none, torch.nan), index.where(~none, -1)


@pytest.fixture(params=["codes kept", "sums of all pairs"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of three latents and of few products."""
    monkeypatch.setattr(co_firing, "_PAIRS", 3 * D_OTHER)
    monkeypatch.setattr(firings, "_PRODUCTS", 9)
    if request.param == "codes kept":
        monkeypatch.setattr(firings.Firings, "kept_bytes", 0)


@pytest.mark.parametrize("seed", range(4))
def test_results_are_those_of_dense_activations(way: None, seed: int) -> None:
    torch.manual_seed(seed)
    pairs = batches()
    a, b = dense([code for code, _ in pairs]), dense([other for _, other in pairs])
    found = together(pairs)
    assert found.rows == len(a)
    for mine, expected in (
        (found.nearest_iou(), dense_iou(a, b)),
        (found.nearest_correlation(), dense_correlation(a, b)),
        (found.swapped().nearest_iou(), dense_iou(b, a)),
        (found.swapped().nearest_correlation(), dense_correlation(b, a)),
    ):
        best, index = nearest(expected)
        torch.testing.assert_close(mine.similarity, best, equal_nan=True)
        assert torch.equal(mine.index, index)


@pytest.mark.parametrize("seed", range(4))
def test_both_ways_at_once_are_the_same_as_one_by_one(way: None, seed: int) -> None:
    torch.manual_seed(seed)
    found = together(batches())
    both, swapped = found.nearest_both_ways(), found.swapped()
    for nearest, alone in (
        (both["iou"][0], found.nearest_iou()),
        (both["iou"][1], swapped.nearest_iou()),
        (both["correlation"][0], found.nearest_correlation()),
        (both["correlation"][1], swapped.nearest_correlation()),
    ):
        torch.testing.assert_close(nearest.similarity, alone.similarity, equal_nan=True)
        assert torch.equal(nearest.index, alone.index)


def test_given_pairs_are_those_of_dense_activations(way: None) -> None:
    batch = batches()
    a, b = dense([code for code, _ in batch]), dense([other for _, other in batch])
    found, pairs = together(batch), torch.tensor([[10, 6], [3, 2], [3, 2], [0, 1], [5, 0], [1, 1]])
    every = pairs[:, 0], pairs[:, 1]
    iou = dense_iou(a, b)[every]
    torch.testing.assert_close(found.iou(pairs).nan_to_num(0), iou.nan_to_num(0))
    correlation = dense_correlation(a, b)[every]
    torch.testing.assert_close(found.correlation(pairs), correlation, equal_nan=True)


def test_a_dictionary_beside_itself_permuted_is_the_same() -> None:
    code, order = random_code(60, 4, D_SAE), torch.randperm(D_SAE)
    found = CoFiring(D_SAE, D_SAE)
    found.update(code, SparseCode(2 * code.values, order[code.indices], D_SAE))
    fires = found.firings > 0
    for similarity, index in (found.nearest_iou(), found.nearest_correlation()):
        torch.testing.assert_close(similarity[fires], torch.ones_like(similarity[fires]))
        assert torch.equal(index[fires], order[fires])
        assert index[~fires].eq(-1).all() and similarity[~fires].isnan().all()


@pytest.mark.parametrize("d_other", [1, 40])
def test_exchanged_dictionaries_do_not_see_what_is_added_later(d_other: int) -> None:
    found = CoFiring(D_SAE, d_other)
    for _ in range(30):
        code = random_code(9, 4, D_SAE)
        other = SparseCode(code.values[:, :1], code.indices[:, :1] % d_other, d_other)
        found.update(code, other)
    swapped = found.swapped()
    before, rows = swapped.nearest_iou().similarity, swapped.rows
    found.update(code, other)
    torch.testing.assert_close(swapped.nearest_iou().similarity, before, equal_nan=True)
    assert swapped.rows == rows


def test_pairs_of_a_matching_are_looked_up() -> None:
    code, W = random_code(30, 4, D_SAE), torch.randn(D_SAE, 5)
    found = CoFiring(D_SAE, D_SAE)
    found.update(code, code)
    iou = found.iou(match_one_to_one(W, W).pairs)
    assert iou[found.firings > 0].eq(1).all()


def test_what_fires_with_none_has_the_first_that_fires_with_overlap_zero() -> None:
    found = CoFiring(2, 3)
    code = SparseCode(torch.tensor([[1.0], [0.0]]), torch.tensor([[1], [0]]), 2)
    found.update(code, SparseCode(torch.tensor([[0.0], [1.0]]), torch.tensor([[0], [2]]), 3))
    assert found.nearest_iou().index.tolist() == [-1, 2]
    assert found.nearest_iou().similarity[1] == 0
    assert found.nearest_correlation().similarity[1] == -1


def test_an_activation_that_is_always_the_same_correlates_with_none() -> None:
    found = CoFiring(1, 1)
    code = SparseCode(torch.full((9, 1), 0.1), torch.zeros(9, 1, dtype=torch.int64), 1)
    found.update(code, code)
    assert found.nearest_iou().similarity.tolist() == [1]
    assert found.nearest_correlation().index.tolist() == [-1]
    assert found.correlation(torch.tensor([[0, 0]])).isnan().all()


def test_without_rows_there_is_no_nearest() -> None:
    found = CoFiring(2, 3)
    assert found.nearest_iou().index.tolist() == [-1, -1]
    assert found.nearest_correlation().similarity.isnan().all()


def test_codes_take_no_more_than_the_sums_of_all_pairs_would() -> None:
    found, limit = CoFiring(D_SAE, D_OTHER), 16 * D_SAE * D_OTHER
    for _ in range(50):
        found.update(random_code(20, 4, D_SAE), random_code(20, 3, D_OTHER))
        assert found._mine.kept_bytes + found._theirs.kept_bytes <= limit


@pytest.mark.parametrize(
    ("code", "other", "told"),
    [
        (random_code(3, 2, 9), random_code(3, 2, 7), "code has d_sae = 9, expected 11"),
        (random_code(3, 2, 11), random_code(3, 2, 9), "other has d_sae = 9, expected 7"),
        (random_code(3, 2, 11), random_code(4, 2, 7), "code has 3 rows and other 4"),
        (random_code(3, 2, 11), torch.ones(3, 7), "other is a Tensor, expected a SparseCode"),
    ],
)
def test_other_codes_are_refused(code: SparseCode, other: SparseCode, told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        CoFiring(D_SAE, D_OTHER).update(code, other)


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        (torch.zeros(2, dtype=torch.int64), r"pairs has shape \[2\], expected \[pairs, 2\]"),
        (torch.tensor([[0, 7]]), r"pairs\[:, 1\] must lie in \[0, d_other = 7\)"),
        (torch.tensor([[-1, 0]]), r"pairs\[:, 0\] must lie in \[0, d_sae = 11\)"),
    ],
)
def test_other_pairs_are_refused(pairs: Tensor, told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        CoFiring(D_SAE, D_OTHER).iou(pairs)
