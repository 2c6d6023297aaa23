"""BatchTopK: exactly k B pairs of a batch, whatever the ties and the guesses, and its threshold."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightsae_kernels import encode_topk
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import BatchTopK, OffSupportL1, SparseAutoencoder, objective
from lightsae.sae.selection import Batch
from lightsae.sae.selection.batch_largest import BatchLargest

from ..helpers import assert_close
from .dense_rules import support_of


def of_activations(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An encoder whose activations are its inputs."""
    d = a.shape[1]
    return torch.eye(d, dtype=a.dtype), torch.zeros(d, dtype=a.dtype), torch.zeros(d, dtype=a.dtype)


def dense(encoded: Any, d_sae: int) -> Tensor:
    code = torch.zeros(len(encoded.values), d_sae, dtype=encoded.values.dtype)
    return code.scatter_add(1, encoded.indices, encoded.values)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_selects_what_a_sort_of_the_whole_batch_selects(data: st.DataObject) -> None:
    B, d, k = (
        data.draw(st.integers(1, top), label) for top, label in ((6, "B"), (9, "d"), (9, "k"))
    )
    k = min(k, d)
    steps = data.draw(st.integers(1, 4), "distinct values")
    a = torch.randint(-2, steps + 1, (B, d), generator=torch.Generator().manual_seed(B * d + k))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]), "dtype")
    rule, a = BatchTopK(k), a.to(dtype) / 4
    found = dense(rule.encode(a, of_activations(a)), d)
    wanted = a.relu() * support_of(rule, a.relu())
    assert torch.equal(found, wanted)
    assert (found > 0).sum() == min(k * B, int((a > 0).sum()))


def test_a_batch_of_equal_activations_is_filled_from_the_first_row() -> None:
    a = torch.ones(4, 6)
    found = dense(BatchTopK(2).encode(a, of_activations(a)), 6)
    assert found.sum(dim=1).tolist() == [6, 2, 0, 0]
    assert found[1].tolist() == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("guess", [0.0, 1e-12, 0.5, 1.0, 2.9, 1e9])
def test_the_result_does_not_depend_on_the_threshold_of_the_last_batch(guess: float) -> None:
    a = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    rule, fresh = BatchTopK(3), BatchTopK(3)
    rule._last_threshold = guess
    ours, wanted = (dense(each.encode(a, of_activations(a)), 20) for each in (rule, fresh))
    assert torch.equal(ours, wanted) and (ours > 0).sum() == 90


@pytest.mark.parametrize("candidates", [1, 4, 20])
def test_the_largest_of_each_row_give_the_same_however_few_are_tried_first(
    candidates: int,
) -> None:
    """What a GPU does."""
    a = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    a[4] += 5
    rule, encoder = BatchTopK(3), of_activations(a)
    wanted = dense(rule.encode(a, encoder), 20)
    rule._candidates = candidates
    tried: list[int] = []

    def operation(k: int, **options: Any) -> Any:
        tried.append(k)
        return encode_topk(a, *encoder, k, **options)

    found, _ = rule._by_rank(operation, 20, {}, None)
    assert torch.equal(dense(found, 20), wanted)
    assert tried[0] == candidates and tried[-1] == 20
    rule._by_rank(operation, 20, {}, None)
    assert tried[-2] == 20, "the next batch starts with what this one took"


def test_no_positive_activation_is_no_error() -> None:
    sae = SparseAutoencoder(4, 8, BatchTopK(2))
    sae.b_enc.data.fill_(-100.0)
    parts = objective(sae, torch.randn(5, 4), regularizer=OffSupportL1(0.1))
    parts.loss.backward()
    assert not parts.encoded.values.any()
    assert sae.selection.threshold == -1  # type: ignore[comparison-overlap]


def test_an_empty_batch_is_no_error() -> None:
    sae = SparseAutoencoder(4, 8, BatchTopK(2))
    assert objective(sae, torch.zeros(0, 4)).encoded.values.shape[0] == 0


def test_the_threshold_is_the_mean_of_the_batches_at_first_and_follows_them_later() -> None:
    rule = BatchTopK(1, threshold_rate=0.25)
    smallest = [4.0, 2.0, 3.0, 1.0, 5.0, 9.0]
    seen = []
    for value in smallest:
        a = torch.tensor([[value, 0.5], [0.1, 7.0 + value]], requires_grad=True)
        rule.encode(a, of_activations(a))
        seen.append(float(rule.threshold))
    assert seen[:4] == pytest.approx([4, 3, 3, 2.5])
    assert seen[4] == pytest.approx(2.5 + 0.25 * (5 - 2.5))
    assert seen[5] == pytest.approx(seen[4] + 0.25 * (9 - seen[4]))


def test_new_inputs_go_by_the_threshold_once_there_is_one() -> None:
    a = torch.tensor([[1.0, 5.0, 3.0], [2.5, 0.0, 0.1]])
    rule, encoder = BatchTopK(1), of_activations(a)
    untaught = rule.inference()
    assert isinstance(untaught, BatchTopK)
    assert dense(untaught.encode(a, encoder), 3).tolist() == [[0, 5, 3], [0, 0, 0]]
    rule.threshold.fill_(2.5)
    found = rule.inference().encode(a, encoder)
    # What equals the threshold does not exceed it.
    assert dense(found, 3).tolist() == [[0, 5, 3], [0, 0, 0]]


def test_a_code_of_new_inputs_teaches_no_threshold() -> None:
    """In training mode and where gradients are made, too."""
    torch.manual_seed(0)
    sae, x = SparseAutoencoder(6, 24, BatchTopK(3), "none"), torch.randn(11, 6)
    first, second = sae.encode(x).to_dense(), sae.encode(x).to_dense()
    assert torch.equal(first, second) and (first > 0).sum() == 33
    assert sae.selection.threshold == -1  # type: ignore[comparison-overlap]


def test_a_batch_with_too_few_activations_is_encoded_a_few_times_and_the_next_once() -> None:
    a = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    rule, encoder = BatchTopK(19), of_activations(a)
    calls: list[float] = []

    def operation(k: int, *, above: Tensor, **options: Any) -> Any:
        calls.append(float(above))
        return encode_topk(a, *encoder, k, above=above, **options)

    for tries in (4, 1):
        calls.clear()
        found = rule.run(operation, Batch(a, encoder), {})
        assert torch.equal(dense(found, 20), a.relu())
        assert len(calls) == tries and calls[-1] == 0


def test_a_trained_threshold_gives_the_l0_it_was_trained_to() -> None:
    torch.manual_seed(0)
    x = torch.randn(2000, 12)
    sae = SparseAutoencoder(12, 48, BatchTopK(5))
    sae.initialize_(x)
    optimizer = torch.optim.Adam(sae.parameters(), 1e-3)
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 1e-3 if step < 70 else 1e-4
        objective(sae, sae.normalize(x[torch.randperm(2000)[:500]]).x).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sae.encode(x).l0().float().mean() == pytest.approx(5, rel=0.05)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    with pytest.raises(LightsaeError, match="threshold_rate must be above 0 and at most 1"):
        BatchTopK(4, threshold_rate=rate)


def test_gradients_in_float32_are_those_of_float64_at_the_same_support() -> None:
    x = torch.randn(40, 12, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    sae = SparseAutoencoder(12, 48, BatchTopK(5), "none")
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    ours = torch.autograd.grad(objective(sae, x).loss, [getattr(sae, n) for n in names])
    wide = sae.double()
    theirs = torch.autograd.grad(
        objective(wide, x.double()).loss, [getattr(wide, n) for n in names]
    )
    for name, one, other in zip(names, ours, theirs, strict=True):
        assert_close(name, one, other, 1e-5)


def test_largest_of_a_batch_says_whether_there_were_enough() -> None:
    narrow = BatchLargest(k=2)
    nowhere = torch.zeros(2, 3, dtype=torch.int64)
    assert narrow(torch.tensor([[1.0, 0, 0], [2.0, 0, 0]]), nowhere).sum() == 2
    assert not narrow.enough and narrow.threshold == 1
    assert narrow(torch.tensor([[1.0, 3, 4], [2.0, 0, 0]]), nowhere).sum() == 4
    assert narrow.enough and narrow.most == 3
