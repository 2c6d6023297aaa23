"""Each metric equals its definition, computed slowly; batches and their order do not matter."""

import pytest
import torch
from torch import Tensor

from tests.metrics import cases
from tests.metrics.cases import CASES, ROWS, computed, figures

EVERYTHING = torch.arange(ROWS)
DEFINED = [name for name, case in CASES.items() if case.expected is not None]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DEFINED)
def test_a_metric_is_its_definition(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "SEED", seed)
    found = computed(name, [EVERYTHING])
    expected = CASES[name].expected
    assert expected is not None
    for figure, value in expected().items():
        wanted = torch.tensor(value, dtype=torch.float64)
        torch.testing.assert_close(
            found[figure].double(), wanted, rtol=1e-9, atol=1e-9, equal_nan=True,
            msg=lambda text, figure=figure: f"{figure}: {text}",
        )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_any_split_of_shuffled_rows_gives_the_same(name: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(ROWS, generator=generator)
    cuts = torch.randint(0, ROWS + 1, (9,), generator=generator).sort().values.tolist()
    whole = computed(name, [EVERYTHING])
    parts = computed(name, list(order.tensor_split(cuts)))
    assert_same(parts, whole)


@pytest.mark.parametrize("name", CASES)
def test_the_same_batches_give_the_same_bits(name: str) -> None:
    batches = list(EVERYTHING.tensor_split([7, 31]))
    first, again = computed(name, batches), computed(name, batches)
    for figure, value in first.items():
        assert torch.equal(value.nan_to_num(), again[figure].nan_to_num()), figure


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for figure, value in expected.items():
        torch.testing.assert_close(
            found[figure], value, rtol=1e-10, atol=1e-12, equal_nan=True,
            msg=lambda text, figure=figure: f"{figure}: {text}",
        )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_forward_returns_the_batch_and_keeps_the_whole(name: str) -> None:
    metric = CASES[name].make()
    parts = EVERYTHING.tensor_split([25, 41])
    for rows in parts:
        assert_same(figures(metric(**CASES[name].given(rows))), computed(name, [rows]))
    assert_same(figures(metric.compute()), computed(name, [EVERYTHING]))


@pytest.mark.parametrize("name", CASES)
def test_merged_metrics_are_one_of_both(name: str) -> None:
    left, right = CASES[name].make(), CASES[name].make()
    left.update(**CASES[name].given(EVERYTHING[:25]))
    right.update(**CASES[name].given(EVERYTHING[25:]))
    left.merge_state(right)
    assert_same(figures(left.compute()), computed(name, [EVERYTHING]))
