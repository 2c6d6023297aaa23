import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics import TopActivating, TopActivations, top_activating


def tokens(n: int, seed: int, images: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # Few distinct values, so that ties are common.
    values = torch.randint(0, 5, (n, 3), generator=generator) / 4
    indices = torch.rand(n, 6, generator=generator).topk(3, dim=1).indices
    return values, indices, torch.randint(0, images, (n,), generator=generator)


def definition(batch: tuple[Tensor, Tensor, Tensor], d_sae: int, n: int) -> list[list[tuple]]:
    best: list[dict[int, float]] = [{} for _ in range(d_sae)]
    for values, indices, sample in zip(*(part.tolist() for part in batch), strict=True):
        for value, latent in zip(values, indices, strict=True):
            if value > 0:
                best[latent][sample] = max(value, best[latent].get(sample, 0.0))
    return [
        sorted(((value, sample) for sample, value in one.items()), key=lambda e: (-e[0], e[1]))[:n]
        for one in best
    ]


def listed(top: TopActivations) -> list[list[tuple]]:
    return [
        [(value, sample) for value, sample in zip(*row, strict=True) if sample >= 0]
        for row in zip(top.values.tolist(), top.samples.tolist(), strict=True)
    ]


@given(
    rows=st.integers(1, 60),
    images=st.integers(1, 30),
    n=st.integers(1, 5),
    batch_size=st.integers(1, 60),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_streaming_equals_sorting_everything(
    rows: int, images: int, n: int, batch_size: int, seed: int
) -> None:
    batch = tokens(rows, seed, images)
    metric = TopActivating(6, n)
    for parts in zip(*(part.split(batch_size) for part in batch), strict=True):
        metric.update(*parts)
    top = metric.compute()
    assert listed(top) == definition(batch, 6, n)
    assert (top.values[top.samples == -1] == 0).all()


def test_ties_go_to_the_lowest_sample() -> None:
    values, indices = torch.ones(4, 1), torch.zeros(4, 1).long()
    metric = TopActivating(1, 2)
    metric.update(values, indices, torch.tensor([9, 3, 7, 5]))
    metric.update(values[:1], indices[:1], torch.tensor([4]))
    assert metric.compute().samples.tolist() == [[3, 4]]


def test_an_evicted_image_comes_back_with_a_stronger_token() -> None:
    metric = TopActivating(1, 1)
    for value, sample in [(1.0, 0), (2.0, 1), (3.0, 0)]:
        metric.update(torch.tensor([[value]]), torch.tensor([[0]]), torch.tensor([sample]))
    assert listed(metric.compute()) == [[(3.0, 0)]]


def test_one_place_of_one_latent_keeps_its_shape() -> None:
    metric = TopActivating(1, 1)
    metric.update(torch.ones(1, 1), torch.zeros(1, 1).long(), torch.tensor([4]))
    assert metric.compute().samples.shape == (1, 1)


def test_entries_equal_rows() -> None:
    values, indices, samples = tokens(20, 0, 10)
    rows = top_activating(values, indices, samples, d_sae=6, n=3)
    entries = top_activating(
        values.flatten(), indices.flatten(), samples.repeat_interleave(3), d_sae=6, n=3
    )
    assert listed(entries) == listed(rows)


def test_merged_parts_equal_the_whole() -> None:
    batch = tokens(40, 3, 20)
    left, right = TopActivating(6, 4), TopActivating(6, 4)
    left.update(*(part[:15] for part in batch))
    right.update(*(part[15:] for part in batch))
    left.merge_state(right)
    assert listed(left.compute()) == definition(batch, 6, 4)


def test_nothing_fired() -> None:
    top = top_activating(
        torch.zeros(2, 1), torch.zeros(2, 1).long(), torch.tensor([0, 1]), d_sae=2, n=3
    )
    assert listed(top) == [[], []]


def test_bad_input_is_named() -> None:
    with pytest.raises(LightsaeError, match="values, indices and sample_index have shapes"):
        top_activating(torch.ones(2, 1), torch.zeros(2, 1).long(), torch.zeros(3).long(), 2, 1)
    with pytest.raises(LightsaeError, match="n = 0, expected at least 1"):
        TopActivating(3, 0)


@pytest.mark.parametrize("first", [2**53, 2**62, 2**63 - 3], ids=["2^53", "2^62", "largest"])
def test_a_sample_index_keeps_every_digit(first: int) -> None:
    values, indices = torch.tensor([[3.0], [2.0], [1.0]]), torch.zeros(3, 1).long()
    samples = torch.tensor([first, first + 1, first + 2])
    left, right = TopActivating(1, 3), TopActivating(1, 3)
    left.update(values[:2], indices[:2], samples[:2])
    right.update(values[2:], indices[2:], samples[2:])
    left.merge_state(right)
    assert left.compute().samples.tolist() == [samples.tolist()]
    assert left.compute().values.tolist() == [[3.0, 2.0, 1.0]]
    assert top_activating(values, indices, samples, 1, 3).samples.tolist() == [samples.tolist()]


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("narrow", [True, False])
def test_values_that_float32_has_and_others_are_ranked_alike(narrow: bool, repeats: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(200, 3, generator=generator, dtype=torch.float64)
    values = values.float() if narrow else values
    indices = torch.rand(200, 6, generator=generator).topk(3, dim=1).indices
    samples = torch.randperm(200, generator=generator) // (4 if repeats else 1) + 10**12
    batch = values, indices, samples
    assert listed(top_activating(*batch, d_sae=6, n=9)) == definition(batch, 6, 9)
