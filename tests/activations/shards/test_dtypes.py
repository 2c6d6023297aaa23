import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightsae.activations.shards.checked_read import all_finite
from lightsae.activations.shards.dtypes import as_float32, storage
from lightsae.activations.shards.running_moments import Moments
from lightsae.errors import LightsaeError

DTYPES = ["float16", "bfloat16", "float32"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_16_bit_value_is_judged_as_torch_judges_it(dtype: str) -> None:
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    finite = torch.isfinite(bits.view(storage(dtype).torch_dtype))
    judged = [all_finite(value.view(np.uint8), dtype) for value in bits.numpy().reshape(-1, 1)]
    assert judged == finite.tolist()


@given(st.floats(width=32), st.integers(0, 63))
def test_one_value_among_zeros_is_judged_as_numpy_judges_it(value: float, place: int) -> None:
    array = np.zeros(64, np.float32)
    array[place] = value
    assert all_finite(array.view(np.uint8), "float32") == bool(np.isfinite(value))


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_values_are_finite(dtype: str) -> None:
    assert all_finite(np.empty(0, np.uint8), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_come_back_as_rows(dtype: str) -> None:
    rows = torch.tensor([[1.5, -2.0], [0.25, 8.0]])
    raw = rows.to(storage(dtype).torch_dtype).view(-1).view(torch.uint8).numpy()
    assert as_float32(raw, dtype, 2).tolist() == rows.tolist()


def test_an_unknown_dtype_lists_the_known() -> None:
    with pytest.raises(LightsaeError, match="'int8', expected one of float16, bfloat16, float32"):
        storage("int8")


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.integers(0, 9))
def test_merged_moments_equal_those_of_all_rows(cuts: list[int], seed: int) -> None:
    parts = [np.random.default_rng([seed, n]).normal(1e3, 2, (n, 3)) for n in cuts]
    merged = Moments.empty(3)
    for part in parts:
        merged = merged.merge(Moments.of(part)) if len(part) else merged
    rows = np.concatenate(parts)
    assert merged.count == len(rows)
    if len(rows):
        np.testing.assert_allclose(merged.mean, rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(merged.scale, rows.std(0), rtol=1e-9, atol=1e-9)
