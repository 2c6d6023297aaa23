import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.metrics import RankProfile, rank_profile
from tests.metrics import references


def pre_activations(n: int, d_sae: int = 12) -> torch.Tensor:
    return torch.randn(n, d_sae, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


@pytest.mark.parametrize(("k", "ranks"), [(1, 4), (2, 8), (5, 12)])
def test_the_mean_of_sorted_rows_to_four_times_k(k: int, ranks: int) -> None:
    rows = pre_activations(30)
    profile = rank_profile(rows, k)
    assert profile.rank.tolist() == list(range(1, ranks + 1))
    expected = torch.tensor(references.rank_profile(rows, ranks), dtype=torch.float64)
    torch.testing.assert_close(profile.activation, expected, rtol=1e-12, atol=1e-12)


def test_few_rows_are_all_looked_at() -> None:
    metric = RankProfile(12, k=2)
    metric.update(pre_activations(30), torch.arange(30))
    expected = rank_profile(pre_activations(30), k=2)
    torch.testing.assert_close(metric.compute().activation, expected.activation)
    assert metric.compute().rows == 30


@pytest.mark.parametrize("known", [None, 1000])
def test_of_many_rows_the_sample_is_of_their_numbers_alone(known: int | None) -> None:
    rows, numbers = pre_activations(1000), torch.arange(1000)
    whole = RankProfile(12, k=2, max_rows=100)
    whole.update(rows, numbers)
    metric = RankProfile(12, k=2, max_rows=100, rows=known)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    looked_at = 0
    for part in order.split(64):
        wanted = part[metric.wanted(numbers[part])]
        metric.update(rows[wanted], numbers[wanted])
        looked_at += len(wanted)
    assert metric.compute().rows == 100
    assert torch.equal(metric.compute().activation, whole.compute().activation)
    assert sum(map(len, metric.activations)) <= 200
    assert looked_at < (200 if known else 700)


def test_tokens_of_an_image_are_told_apart() -> None:
    rows = pre_activations(6)
    metric = RankProfile(12, k=2)
    metric.update(rows, torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert metric.compute().rows == 6
    metric.update(rows[:1], torch.tensor([1]), torch.tensor([2]))
    with pytest.raises(LightsaeError, match="two rows have the same sample_index and token_index"):
        metric.compute()


@pytest.mark.parametrize(
    ("rows", "numbers", "told"),
    [
        (torch.zeros(2, 3), torch.arange(2), r"has shape \[2, 3\], expected \[rows, 12\]"),
        (pre_activations(2), torch.arange(3), r"sample_index has shape \[3\], expected \[2\]"),
        (pre_activations(2), torch.tensor([0, -1]), "sample_index has -1: rows are sampled"),
        (pre_activations(2) / 0, torch.arange(2), "pre_activations must be finite"),
    ],
)
def test_what_does_not_fit_is_named(rows: torch.Tensor, numbers: torch.Tensor, told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        RankProfile(12, k=2).update(rows, numbers)


def test_batches_keep_what_forward_sees_apart() -> None:
    metric = RankProfile(12, k=2, max_rows=10)
    for start in (0, 30):
        batch = metric(pre_activations(60)[start : start + 30], torch.arange(start, start + 30))
        assert batch.rows == 10
    whole = RankProfile(12, k=2, max_rows=10)
    whole.update(pre_activations(60), torch.arange(60))
    assert torch.equal(metric.compute().activation, whole.compute().activation)
