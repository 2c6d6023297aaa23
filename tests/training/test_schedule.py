"""WarmupDecay: rise linearly, stay, fall linearly to zero."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightsae.errors import LightsaeError
from lightsae.training import WarmupDecay


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)


def rates(schedule: WarmupDecay, steps: int) -> list[float]:
    """The learning rate of each step."""
    used = []
    for _ in range(steps):
        used.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return used


def test_the_rate_rises_stays_and_falls() -> None:
    schedule = WarmupDecay(optimizer(), total_steps=8, warmup_steps=3, decay_steps=4)
    assert rates(schedule, 9) == pytest.approx([0.5, 1, 1.5, 2, 2, 1.5, 1, 0.5, 0])


def test_without_warmup_and_decay_the_rate_stays() -> None:
    assert rates(WarmupDecay(optimizer(), total_steps=3), 5) == [2.0] * 5


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_no_step_of_the_run_is_lost_and_none_is_above_the_full_rate(
    warmup: int, stay: int, decay: int
) -> None:
    total = warmup + stay + decay
    factors = [
        WarmupDecay(optimizer(), total, warmup, decay).factor(step) for step in range(total + 2)
    ]
    assert all(0 < factor <= 1 for factor in factors[:total])
    assert all(after >= before for before, after in pairwise(factors[: warmup + stay]))
    assert all(after <= before for before, after in pairwise(factors[warmup:]))
    assert factors[total] == (0 if decay else 1)


@pytest.mark.parametrize(("warmup", "decay"), [(6, 5), (11, 0), (-1, 0), (0, -1)])
def test_parts_that_do_not_fit_are_named(warmup: int, decay: int) -> None:
    message = f"warmup_steps = {warmup} and decay_steps = {decay} .* total_steps = 10"
    with pytest.raises(LightsaeError, match=message):
        WarmupDecay(optimizer(), 10, warmup, decay)


def test_it_goes_on_where_it_was() -> None:
    first = WarmupDecay(optimizer(), total_steps=10, warmup_steps=4, decay_steps=4)
    expected = rates(first, 10)
    before = WarmupDecay(optimizer(), total_steps=10, warmup_steps=4, decay_steps=4)
    rates(before, 5)
    after = WarmupDecay(optimizer(), total_steps=10, warmup_steps=4, decay_steps=4)
    after.optimizer.load_state_dict(before.optimizer.state_dict())
    after.load_state_dict(before.state_dict())
    assert rates(after, 5) == expected[5:]
