"""A partner of its own for each latent of two dictionaries."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from lightsae.dictionaries import match_one_to_one
from lightsae.dictionaries.matching import cosine, one_to_one
from lightsae.errors import LightsaeError


def dense_cosines(W: Tensor, others: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(W.double()[:, None], others.double(), dim=2)


def dense_greedy(W: Tensor, others: Tensor) -> list[list[int]]:
    """The largest cosine that is left, again and again."""
    cosines, pairs = dense_cosines(W, others), []
    cosines[~W.any(1)] = cosines[:, ~others.any(1)] = -torch.inf
    while cosines.numel() and cosines.max() > -torch.inf:
        i, j = divmod(int(cosines.argmax()), len(others))
        pairs.append([i, j])
        cosines[i] = cosines[:, j] = -torch.inf
    return sorted(pairs)


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the size of the assignment, in small ragged blocks and with few candidates."""
    monkeypatch.setattr(one_to_one, "_ASSIGNED", 0)
    monkeypatch.setattr(one_to_one, "_CANDIDATES", 60)
    monkeypatch.setattr(cosine, "_ROWS", 5)
    monkeypatch.setattr(cosine, "_OTHERS", 7)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> None:
    if request.param == "greedily":
        request.getfixturevalue("greedy")


both = pytest.mark.parametrize("way", ["assigned", "greedily"], indirect=True)


@both
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_permuted_dictionary_is_found_with_all_of_its_latents(way: None, scale: float) -> None:
    W, order = torch.randn(23, 6), torch.randperm(23)
    found = match_one_to_one(W, scale * W[order])
    assert torch.equal(found.pairs, torch.stack([torch.arange(23), order.argsort()], dim=1))
    torch.testing.assert_close(found.similarity, torch.ones(23))


@both
def test_of_opposite_directions_none_is_similar(way: None) -> None:
    found = match_one_to_one(torch.eye(8), -torch.eye(8))
    assert len(found.pairs) == 8 and found.similarity.max() < 0.5


@both
@pytest.mark.parametrize(("n", "m"), [(23, 31), (31, 23), (1, 9), (40, 40)])
def test_no_latent_is_taken_twice_and_cosines_are_those_of_the_pairs(
    way: None, n: int, m: int
) -> None:
    W, others = torch.randn(n, 6), torch.randn(m, 6)
    pairs, similarity = match_one_to_one(W, others)
    assert len(pairs) == min(n, m)
    assert all(len(column.unique()) == len(column) for column in pairs.T)
    assert torch.equal(pairs[:, 0], pairs[:, 0].sort().values)
    dense = dense_cosines(W, others)[pairs[:, 0], pairs[:, 1]]
    torch.testing.assert_close(similarity.double(), dense, atol=1e-6, rtol=0)


def test_the_assignment_has_the_largest_sum() -> None:
    W, others = torch.randn(5, 3).double(), torch.randn(6, 3).double()
    cosines = dense_cosines(W, others)
    sums = (cosines[range(5), list(order)].sum() for order in permutations(range(6), 5))
    torch.testing.assert_close(match_one_to_one(W, others).similarity.sum(), max(sums))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m"), [(23, 31), (31, 23), (64, 64), (90, 3), (2, 50)])
def test_beyond_it_is_the_dense_greedy(greedy: None, n: int, m: int, dtype: torch.dtype) -> None:
    W, others = torch.randn(n, 6).to(dtype), torch.randn(m, 6).to(dtype)
    assert match_one_to_one(W, others).pairs.tolist() == dense_greedy(W, others)


@pytest.mark.parametrize("seed", range(6))
def test_of_equal_cosines_the_lowest_latents_win(greedy: None, seed: int) -> None:
    torch.manual_seed(seed)
    W, others = (torch.eye(4)[torch.randint(4, (n,))] for n in (29, 33))
    assert match_one_to_one(W, others).pairs.tolist() == dense_greedy(W, others)


def test_latents_that_all_want_the_same_partners_get_new_candidates(greedy: None) -> None:
    W = torch.tensor([[1.0, 0.0]]) + 0.01 * torch.randn(40, 2)
    others = torch.tensor([[1.0, 0.2]]) + 0.01 * torch.randn(40, 2)
    W, others = W.double(), others.double()
    assert match_one_to_one(W, others).pairs.tolist() == dense_greedy(W, others)


@both
def test_zeros_have_no_partner(way: None) -> None:
    W = torch.eye(4)[[0, 1, 2]]
    W[1] = 0
    others = torch.eye(4)[[3, 2, 0, 1]]
    others[0] = 0
    assert match_one_to_one(W, others).pairs.tolist() == [[0, 2], [2, 1]]


@both
@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 0), (0, 0)])
def test_an_empty_dictionary_has_no_pairs(way: None, n: int, m: int) -> None:
    pairs, similarity = match_one_to_one(torch.randn(n, 3), torch.randn(m, 3))
    assert pairs.shape == (0, 2) and similarity.shape == (0,)


def test_what_is_no_dictionary_is_refused() -> None:
    with pytest.raises(LightsaeError, match="differ in width: W 3 and others 4"):
        match_one_to_one(torch.ones(2, 3), torch.ones(2, 4))
