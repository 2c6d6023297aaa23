"""Each metric equals its definition, computed slowly; batches and their order do not matter."""

import pytest
import torch

from tests.metrics.cases import CASES, ROWS, computed

EVERYTHING = torch.arange(ROWS)
DEFINED = [name for name, case in CASES.items() if case.expected is not None]


@pytest.mark.parametrize("name", DEFINED)
def test_a_metric_is_its_definition(name: str) -> None:
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
    assert whole.keys() == parts.keys()
    for figure, value in whole.items():
        torch.testing.assert_close(
            parts[figure], value, rtol=1e-10, atol=1e-12, equal_nan=True,
            msg=lambda text, figure=figure: f"{figure}: {text}",
        )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_same_batches_give_the_same_bits(name: str) -> None:
    batches = list(EVERYTHING.tensor_split([7, 31]))
    first, again = computed(name, batches), computed(name, batches)
    for figure, value in first.items():
        assert torch.equal(value.nan_to_num(), again[figure].nan_to_num()), figure
