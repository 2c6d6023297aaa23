"""The fused selection on drawn shapes and ties; apart, as not every GPU machine has hypothesis."""

import pytest

pytest.importorskip("hypothesis")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import INTERPRETED
from .test_select import activations, assert_selected


@pytest.mark.skipif(not INTERPRETED, reason="draws run where kernels need no compiling")
@given(
    B=st.integers(1, 5), N=st.integers(1, 90), share=st.floats(0, 1), levels=st.integers(1, 40),
    group=st.sampled_from([1, 2, 4, 8]), seed=st.integers(0, 2**16),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_any_shape_with_any_number_of_ties(
    B: int, N: int, share: float, levels: int, group: int, seed: int
) -> None:
    k = max(1, min(-(-N // group), round(share * N)))
    a = (activations(B, N, torch.float32, "cpu", seed) * levels).round() / levels
    assert_selected(a, k, group)
