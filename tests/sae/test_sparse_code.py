"""A sparse code is the dense one without its zeros."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import SparseCode, TopK

from .helpers import untied


def code_of(values: list[list[float]], indices: list[list[int]], d_sae: int = 4) -> SparseCode:
    return SparseCode(torch.tensor(values), torch.tensor(indices), d_sae)


def test_values_stand_at_their_indices() -> None:
    code = code_of([[5.0, 2.0], [1.0, 0.0]], [[3, 0], [2, 0]])
    assert code.to_dense().tolist() == [[2, 0, 0, 5], [0, 0, 1, 0]]


def test_l0_counts_what_fires_and_no_fill_in() -> None:
    code = code_of([[5.0, 2.0], [1.0, 0.0], [0.0, 0.0]], [[3, 0], [2, 0], [0, 1]])
    assert code.l0().tolist() == [2, 1, 0]


def test_its_length_is_the_number_of_rows() -> None:
    assert len(code_of([[1.0], [2.0], [3.0]], [[0], [1], [2]])) == 3


@given(rows=st.integers(0, 6), d_sae=st.integers(1, 12), k=st.integers(1, 12))
def test_no_value_is_lost_on_the_way_to_dense(rows: int, d_sae: int, k: int) -> None:
    values = torch.rand(rows, min(k, d_sae)) + 0.1
    indices = torch.rand(rows, d_sae).argsort(dim=1)[:, :k]
    dense = SparseCode(values, indices, d_sae).to_dense()
    assert dense.shape == (rows, d_sae)
    assert torch.equal(dense.gather(1, indices), values)
    assert int((dense != 0).sum()) == values.numel()


def test_gradients_pass_through_dense() -> None:
    values = torch.tensor([[5.0, 2.0]], requires_grad=True)
    dense = SparseCode(values, torch.tensor([[3, 0]]), 4).to_dense()
    (grad,) = torch.autograd.grad((dense * torch.arange(4.0)).sum(), values)
    assert grad.tolist() == [[3, 0]]


def test_detach_leaves_the_graph_and_nothing_else() -> None:
    code = untied(3, 8, 2).encode(torch.randn(4, 3, dtype=torch.float64))
    detached = code.detach()
    assert code.values.requires_grad and not detached.values.requires_grad
    assert torch.equal(code.to_dense(), detached.to_dense())


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_dense_keeps_the_dtype(dtype: torch.dtype) -> None:
    code = SparseCode(torch.ones(1, 1, dtype=dtype), torch.tensor([[2]]), 3)
    assert code.to_dense().dtype == dtype


def test_codes_can_be_compared_without_a_tensor_in_a_condition() -> None:
    a, b = (code_of([[1.0, 2.0]], [[0, 1]]) for _ in range(2))
    assert a == a and a != b


def test_the_dense_code_holds_the_largest_activations() -> None:
    sae = untied(5, 20, 3)
    x = torch.randn(9, 5, dtype=torch.float64)
    a: Tensor = sae.pre_activations(x).relu()
    kept = sae.encode(x).to_dense()
    assert isinstance(sae.selection, TopK)
    threshold = a.topk(3, dim=1).values[:, -1:]
    torch.testing.assert_close(kept, torch.where(a >= threshold, a, 0.0))


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (torch.tensor([[4]]), r"indices must lie in \[0, d_sae = 4\)"),
        (torch.tensor([[-1]]), r"indices must lie in \[0, d_sae = 4\)"),
        (torch.tensor([[1, 2]]), r"indices has shape \[1, 2\], expected values' \[1, 1\]"),
        (torch.tensor([[1.0]]), "indices is torch.float32, expected integers"),
    ],
    ids=["too-large", "negative", "shape", "floats"],
)
def test_a_code_that_is_none_is_told_when_it_is_spread(indices: Tensor, message: str) -> None:
    with pytest.raises(LightsaeError, match=message):
        SparseCode(torch.ones(1, 1), indices, d_sae=4).to_dense()


def test_narrow_indices_are_indices() -> None:
    indices = torch.tensor([[3, 0]])
    code = SparseCode(torch.tensor([[2.0, 1.0]]), indices, d_sae=4)
    narrow = SparseCode(code.values, indices.to(torch.int32), d_sae=4)
    assert torch.equal(narrow.to_dense(), code.to_dense())


def test_a_code_moves_between_devices_only() -> None:
    code = SparseCode(torch.ones(1, 1), torch.zeros(1, 1).long(), d_sae=4)
    assert code.to("meta").indices.device.type == "meta"
    with pytest.raises(LightsaeError, match=r"a code is moved to a device, got torch\.float64"):
        code.to(torch.float64)  # type: ignore[arg-type]
