"""TopK: the k largest, ties to the lowest index, with a penalty where one is asked for."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import (
    L1L2Ratio,
    OffSupportL1,
    Regularizer,
    Selection,
    SparseAutoencoder,
    TopK,
    objective,
)

IDENTITY = torch.eye(4), torch.zeros(4), torch.zeros(4)


def encode(rows: list[list[float]], k: int, **options: Any) -> tuple[list[Any], list[Any]]:
    """Values and indices of rows that are their own activations."""
    encoded = TopK(k).encode(torch.tensor(rows, dtype=torch.float32), IDENTITY, **options)
    return encoded.values.tolist(), encoded.indices.tolist()


def test_keeps_the_largest_in_descending_order() -> None:
    assert encode([[1, 4, 2, 3]], 3) == ([[4, 3, 2]], [[1, 3, 2]])


def test_ties_go_to_the_lowest_index() -> None:
    assert encode([[2, 2, 5, 2]], 2) == ([[5, 2]], [[2, 0]])


def test_too_few_positives_are_filled_with_zeros_at_the_lowest_free_indices() -> None:
    assert encode([[-1, -2, 7, -3]], 3) == ([[7, 0, 0]], [[2, 0, 1]])


def test_k_may_be_the_whole_dictionary() -> None:
    assert encode([[1, -4, 2, 3]], 4) == ([[3, 2, 1, 0]], [[3, 2, 0, 1]])


def test_another_k_for_one_call_leaves_the_rule_alone() -> None:
    rule = TopK(1)
    assert rule.encode(torch.tensor([[1.0, 4, 2, 3]]), IDENTITY, k=2).indices.tolist() == [[1, 3]]
    assert rule.k == 1


def test_the_bias_of_the_decoder_is_subtracted_first() -> None:
    W_enc, b_enc, _ = IDENTITY
    encoder = W_enc, b_enc, torch.tensor([0.0, 9.0, 0.0, 0.0])
    assert TopK(1).encode(torch.tensor([[1.0, 9.0, 0, 0]]), encoder).indices.tolist() == [[0]]


@given(st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), max_size=5), st.data())
def test_is_a_stable_descending_sort(rows: list[list[int]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, 4))
    x = torch.tensor(rows, dtype=torch.float64).view(-1, 4)
    encoded = TopK(k).encode(x, tuple(t.double() for t in IDENTITY))  # type: ignore[arg-type]
    for row, values, indices in zip(rows, encoded.values, encoded.indices, strict=True):
        wanted = sorted(range(4), key=lambda j: (-max(row[j], 0), j))[:k]
        assert indices.tolist() == wanted
        assert values.tolist() == [max(row[j], 0) for j in wanted]


def test_the_batch_active_set_counts_index_sets_and_not_values() -> None:
    encoded = TopK(2).encode(torch.tensor([[-1.0, -1, -1, 3]]), IDENTITY)
    assert encoded.batch_active.tolist() == [True, False, False, True]


def test_no_penalty_without_a_regularizer() -> None:
    assert TopK(2).encode(torch.ones(1, 4), IDENTITY).penalty == 0


@pytest.mark.parametrize(
    ("regularizer", "rows", "expected"),
    [
        (OffSupportL1(9.0), [[3, 1, 0.5, 0], [1, 3, 0.5, 0]], 1.0),
        (OffSupportL1(9.0, batch_active_only=False), [[3, 1, 0.5, 0], [1, 3, 0.5, 0]], 1.5),
        (L1L2Ratio(9.0), [[4, 3, 2, 0], [3, 4, 1, 0]], 7 / 5),
        (L1L2Ratio(9.0, batch_active_only=False), [[4, 2, 2, 1], [1, 2, 4, 2]], 9 / 5),
        (L1L2Ratio(9.0, eps=2.0), [[4, 3, 2, 0], [3, 4, 1, 0]], 7 / (5 + 2)),
    ],
    ids=["reg1", "reg1-unmasked", "reg2", "reg2-unmasked", "reg2-eps"],
)
def test_the_penalty_is_an_unweighted_mean_that_knows_mask_and_eps(
    regularizer: Regularizer, rows: list[list[float]], expected: float
) -> None:
    x = torch.tensor(rows, dtype=torch.float32)
    encoded = TopK(1).encode(x, IDENTITY, regularizer=regularizer)
    assert encoded.penalty.item() == pytest.approx(expected)


@pytest.mark.parametrize("k", [0, -1, 2.5, "2", None, True], ids=repr)
def test_k_is_an_integer_of_at_least_1(k: Any) -> None:
    with pytest.raises(LightsaeError, match="k must be an integer of at least 1"):
        TopK(k)


@pytest.mark.parametrize("k", [0, 5])
def test_another_k_must_fit_the_dictionary(k: int) -> None:
    with pytest.raises(ValueError, match="k must be an integer between 1 and d_sae = 4"):
        TopK(2).encode(torch.ones(1, 4), IDENTITY, k=k)


def test_settings_build_the_same_rule_again() -> None:
    assert TopK(**TopK(7).settings()).k == 7


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))], ids=["deepcopy", "pickle"]
)
def test_can_be_copied_to_another_process(copied: Any) -> None:
    twin = copied(TopK(7))
    assert twin.k == 7
    assert isinstance(twin, Selection)


class FirstLatents:
    """A user's own rule: keep the first k of each row, whatever their size."""

    k = 3

    def encode(self, x: Tensor, encoder: Any, *, k: Any = None, **options: Any) -> Any:
        indices = torch.arange(k or self.k).expand(len(x), -1)
        return (
            TopK(k or self.k)
            .encode(x, encoder)
            ._replace(values=torch.ones(len(x), k or self.k), indices=indices)
        )

    def settings(self) -> dict[str, Any]:
        return {}


def test_a_users_rule_takes_the_place_of_topk() -> None:
    rule = FirstLatents()
    assert isinstance(rule, Selection)
    sae = SparseAutoencoder(4, 8, rule)
    x = torch.randn(5, 4)
    assert sae.encode(x).indices.tolist() == [[0, 1, 2]] * 5
    assert objective(sae, x).loss > 0
