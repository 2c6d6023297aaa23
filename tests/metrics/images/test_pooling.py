from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics import ImageCodes, PooledCodes, pool_by_sample


def tokens(n: int, k: int, d_sae: int, images: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(n, k, generator=generator).sub(0.3).relu()
    indices = torch.rand(n, d_sae, generator=generator).topk(k, dim=1).indices
    return values, indices, 5 * torch.randint(0, images, (n,), generator=generator)


def dense(codes: PooledCodes, d_sae: int) -> Tensor:
    out = torch.zeros(len(codes.sample_index), d_sae, dtype=torch.float64)
    out[codes.rows, codes.indices] = codes.values
    return out


def definition(batch: tuple[Tensor, Tensor, Tensor], d_sae: int, pooling: str) -> Tensor:
    values, indices, sample_index = batch
    by_token = torch.zeros(len(values), d_sae, dtype=torch.float64)
    by_token.scatter_(1, indices, values.double())
    images = [by_token[sample_index == sample] for sample in sample_index.unique()]
    return torch.stack([image.amax(0) if pooling == "max" else image.mean(0) for image in images])


@pytest.mark.parametrize("pooling", ["max", "mean"])
@given(n=st.integers(1, 40), images=st.integers(1, 8), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_pooling_equals_the_dense_definition(pooling: Any, n: int, images: int, seed: int) -> None:
    batch = tokens(n, 3, 7, images, seed)
    codes = pool_by_sample(*batch, d_sae=7, pooling=pooling)
    assert torch.equal(codes.sample_index, batch[2].unique())
    assert (codes.values > 0).all()
    assert torch.equal(codes.rows * 7 + codes.indices, (codes.rows * 7 + codes.indices).unique())
    torch.testing.assert_close(dense(codes, 7), definition(batch, 7, pooling))


@pytest.mark.parametrize("pooling", ["max", "mean"])
@given(n=st.integers(1, 40), batch_size=st.integers(1, 40), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_tokens_spread_over_batches_give_the_same_codes(
    pooling: Any, n: int, batch_size: int, seed: int
) -> None:
    batch = tokens(n, 3, 7, 6, seed)
    accumulator = ImageCodes(7, pooling=pooling)
    for parts in zip(*(part.split(batch_size) for part in batch), strict=True):
        accumulator.update(*parts)
    whole, codes = pool_by_sample(*batch, d_sae=7, pooling=pooling), accumulator.compute()
    assert torch.equal(codes.sample_index, whole.sample_index)
    torch.testing.assert_close(dense(codes, 7), dense(whole, 7))


def test_memory_follows_the_images_and_not_their_tokens() -> None:
    accumulator = ImageCodes(7)
    for seed in range(100):
        accumulator.update(*tokens(40, 3, 7, 4, seed))
    assert sum(map(len, accumulator.values)) <= 2 * 4 * 7


def test_an_image_where_nothing_fired_is_kept() -> None:
    codes = pool_by_sample(torch.zeros(2, 1), torch.zeros(2, 1).long(), torch.tensor([3, 8]), 4)
    assert codes.sample_index.tolist() == [3, 8]
    assert len(codes.values) == 0


def test_one_entry_keeps_its_shape() -> None:
    accumulator = ImageCodes(1)
    accumulator.update(torch.ones(1, 1), torch.zeros(1, 1).long(), torch.tensor([7]))
    codes = accumulator.compute()
    assert codes.values.shape == codes.indices.shape == codes.rows.shape == (1,)


def test_merged_accumulators_equal_one() -> None:
    batch = tokens(40, 3, 7, 6, seed=1)
    left, right = ImageCodes(7), ImageCodes(7)
    left.update(*(part[:15] for part in batch))
    right.update(*(part[15:] for part in batch))
    left.merge_state(right)
    torch.testing.assert_close(dense(left.compute(), 7), definition(batch, 7, "max"))


def test_no_tokens_give_no_codes() -> None:
    accumulator = ImageCodes(7)
    accumulator.update(torch.zeros(0, 2), torch.zeros(0, 2).long(), torch.zeros(0).long())
    assert len(accumulator.compute().sample_index) == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"pooling": "sum"}, "pooling is 'sum', expected 'max' or 'mean'"),
        ({"indices": torch.tensor([[0], [4]])}, r"indices must lie in \[0, d_sae = 4\)"),
        ({"indices": torch.tensor([[0, 1], [1, 2]])}, r"expected values' \[2, 1\]"),
        (
            {"values": torch.ones(2), "indices": torch.tensor([0, 1])},
            r"values has shape \[2\], expected \[tokens, k\]",
        ),
        ({"sample_index": torch.tensor([1])}, r"sample_index has shape \[1\], expected \[2\]"),
    ],
    ids=["pooling", "latent-out-of-range", "shape", "no-rows", "samples"],
)
def test_bad_input_is_named(bad: dict[str, Any], message: str) -> None:
    good = {
        "values": torch.ones(2, 1),
        "indices": torch.tensor([[0], [1]]),
        "sample_index": torch.tensor([0, 1]),
    }
    with pytest.raises(LightsaeError, match=message):
        pool_by_sample(**(good | bad), d_sae=4)


def test_an_unknown_pooling_is_refused_at_once() -> None:
    with pytest.raises(LightsaeError, match="pooling is 'sum'"):
        ImageCodes(4, pooling="sum")  # type: ignore[arg-type]


HUGE = 2**62


@pytest.mark.parametrize("first", [HUGE, 2**63 - 3, -(2**63)], ids=["2^62", "largest", "least"])
def test_any_int64_is_a_sample_index(first: int) -> None:
    samples = torch.tensor([first, first + 1, first + 2, first + 1])
    values, indices = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([[0], [6], [3], [6]])
    accumulator = ImageCodes(7)
    for parts in zip(values.split(1), indices.split(1), samples.split(1), strict=True):
        accumulator.update(*parts)
    for codes in (pool_by_sample(values, indices, samples, d_sae=7), accumulator.compute()):
        assert codes.sample_index.tolist() == [first, first + 1, first + 2]
        assert codes.rows.tolist() == [0, 1, 2]
        assert codes.indices.tolist() == [0, 6, 3]
        assert codes.values.tolist() == [1.0, 4.0, 3.0]


def test_more_pairs_of_image_and_latent_than_int64_counts_are_refused() -> None:
    samples = torch.tensor([0, 1, 2])
    with pytest.raises(LightsaeError, match=f"3 images and d_sae = {HUGE}: more pairs than int64"):
        pool_by_sample(torch.ones(3, 1), torch.zeros(3, 1).long(), samples, d_sae=HUGE)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_narrow_integers_do_not_overflow(dtype: torch.dtype) -> None:
    samples = torch.full((2,), 100, dtype=dtype)
    codes = pool_by_sample(
        torch.ones(2, 1), torch.tensor([[1], [2]], dtype=dtype), samples, d_sae=2**30
    )
    assert codes.indices.tolist() == [1, 2]
    assert codes.sample_index.tolist() == [100]
    assert codes.indices.dtype == codes.sample_index.dtype == torch.int64
