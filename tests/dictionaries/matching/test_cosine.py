"""The most parallel direction of another dictionary."""

import pytest
import torch

from lightsae.dictionaries import nearest_both_ways, nearest_cosines
from lightsae.dictionaries.matching import cosine
from lightsae.errors import LightsaeError


def test_blocks_equal_the_dense_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosine, "_ROWS", 5)
    monkeypatch.setattr(cosine, "_OTHERS", 7)
    W, others = torch.randn(23, 6), torch.randn(31, 6)
    dense = torch.nn.functional.cosine_similarity(W.double()[:, None], others.double(), dim=2)
    found = nearest_cosines(W, others)
    assert torch.equal(found.index, dense.argmax(dim=1))
    torch.testing.assert_close(found.similarity.double(), dense.amax(dim=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("n", "m"), [(23, 31), (31, 23), (1, 1), (0, 5), (5, 0)])
def test_both_ways_are_each_way_alone(monkeypatch: pytest.MonkeyPatch, n: int, m: int) -> None:
    monkeypatch.setattr(cosine, "_ROWS", 5)
    monkeypatch.setattr(cosine, "_OTHERS", 7)
    W, others = (torch.randint(-1, 2, (rows, 3)).float() for rows in (n, m))
    there, back = nearest_both_ways(W, others)
    for found, alone in (there, nearest_cosines(W, others)), (back, nearest_cosines(others, W)):
        torch.testing.assert_close(found.similarity, alone.similarity, equal_nan=True)
        assert torch.equal(found.index, alone.index)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_no_norm_is_too_small_or_too_large(scale: float) -> None:
    W = torch.eye(3)
    torch.testing.assert_close(nearest_cosines(scale * W, W).similarity, torch.ones(3))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda W: W, 1.0),
        (lambda W: W[torch.randperm(len(W))], 1.0),
        (lambda W: 3 * W, 1.0),
    ],
)
def test_permuted_and_scaled_directions_are_found(change: object, expected: float) -> None:
    W = torch.randn(9, 4)
    found = nearest_cosines(W, change(W))  # type: ignore[operator]
    torch.testing.assert_close(found.similarity, torch.full((9,), expected))


def test_an_opposite_direction_is_another_latent() -> None:
    W = torch.eye(4)
    assert nearest_cosines(W, -W).similarity.max() == 0


def test_the_first_of_equals_is_nearest() -> None:
    found = nearest_cosines(torch.eye(2)[:1], torch.eye(2)[[0, 0, 1]])
    assert found.index.tolist() == [0]


def test_zeros_have_no_direction() -> None:
    found = nearest_cosines(torch.tensor([[0.0, 0.0], [-1.0, 0.0]]), torch.eye(3, 2)[:2] * 0)
    assert found.similarity.isnan().all() and found.index.tolist() == [-1, -1]
    found = nearest_cosines(torch.tensor([[-1.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert found.similarity.tolist() == [-1] and found.index.tolist() == [1]


@pytest.mark.parametrize(
    ("W", "others", "told"),
    [
        (torch.ones(3), torch.ones(2, 3), r"W is torch.float32 \[3\], expected floats"),
        (torch.ones(3, 0), torch.ones(2, 0), r"W is torch.float32 \[3, 0\], expected floats"),
        (torch.ones(3, 3).long(), torch.ones(2, 3), r"W is torch.int64 \[3, 3\], expected"),
        ([[1.0]], torch.ones(2, 3), "W is a list, expected a tensor"),
        (torch.ones(2, 3), torch.ones(2, 4), "differ in width: W 3 and others 4"),
        (torch.ones(2, 3), torch.full((2, 3), torch.nan), "others must be finite"),
    ],
)
def test_other_things_are_refused(W: torch.Tensor, others: torch.Tensor, told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        nearest_cosines(W, others)
