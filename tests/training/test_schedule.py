"""WarmupDecay: rise linearly, stay, fall linearly to zero; and schedules of any kind in a run."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim import lr_scheduler as torch_schedules

from lightsae.errors import LightsaeError
from lightsae.training import WarmupDecay

from .helpers import make_data, make_module, make_trainer


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
    assume(total > 0)
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


@pytest.mark.parametrize("total", [0, -1])
@pytest.mark.parametrize("warmup", [0, 5])
def test_a_run_of_no_steps_is_refused(total: int, warmup: int) -> None:
    message = f"^total_steps = {total}, expected 1 or more, or None for the steps of the run$"
    with pytest.raises(LightsaeError, match=message):
        WarmupDecay(optimizer(), total, warmup)


def test_it_goes_on_where_it_was() -> None:
    first = WarmupDecay(optimizer(), total_steps=10, warmup_steps=4, decay_steps=4)
    expected = rates(first, 10)
    before = WarmupDecay(optimizer(), total_steps=10, warmup_steps=4, decay_steps=4)
    rates(before, 5)
    after = WarmupDecay(optimizer(), total_steps=10, warmup_steps=4, decay_steps=4)
    after.optimizer.load_state_dict(before.optimizer.state_dict())
    after.load_state_dict(before.state_dict())
    assert rates(after, 5) == expected[5:]


def test_what_is_given_now_counts_and_not_what_was_given_before() -> None:
    before = WarmupDecay(optimizer(), total_steps=6, decay_steps=4)
    rates(before, 6)
    after = WarmupDecay(optimizer(), total_steps=12, decay_steps=4)
    after.optimizer.load_state_dict(before.optimizer.state_dict())
    after.load_state_dict(before.state_dict())
    assert rates(after, 6) == pytest.approx([2, 2, 2, 1.5, 1, 0.5])


def test_a_state_that_holds_the_length_goes_on_too() -> None:
    before = WarmupDecay(optimizer(), total_steps=10, decay_steps=4)
    rates(before, 8)
    older = {**before.state_dict(), "total_steps": 10, "warmup_steps": 0, "decay_steps": 4}
    after = WarmupDecay(optimizer(), total_steps=20, decay_steps=4)
    after.load_state_dict(older)
    assert rates(after, 2) == [2.0, 2.0]


class Rates(Callback):
    """The learning rate of each step that is taken."""

    def __init__(self) -> None:
        self.used: list[float] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.used.append(optimizer.param_groups[0]["lr"])


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=2.0**-6)


Schedule = Callable[[torch.optim.Optimizer], Any]


def used_rates(
    shards: Path,
    run: Path,
    schedule: Schedule,
    ckpt: Path | None = None,
    callbacks: tuple[Callback, ...] = (),
    **options: Any,
) -> list[float]:
    """The rates of a run of 10 batches an epoch, in units of the full one."""
    seen = Rates()
    trainer = make_trainer(run, callbacks=[seen, *callbacks], **{"limit_val_batches": 0, **options})
    module = make_module(optimizer=sgd, lr_scheduler=schedule)
    trainer.fit(module, make_data(shards), ckpt_path=ckpt, weights_only=True)
    return [rate * 2**6 for rate in seen.used]


def falling(optimizer: torch.optim.Optimizer) -> WarmupDecay:
    return WarmupDecay(optimizer, decay_steps=4)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 1}, 10),
        ({"max_epochs": 2}, 20),
        ({"max_epochs": 2, "max_steps": 13}, 13),
        ({"max_epochs": -1, "max_steps": 7}, 7),
        ({"max_epochs": 2, "accumulate_grad_batches": 3}, 8),
        ({"max_epochs": 2, "limit_train_batches": 6}, 12),
        ({"max_epochs": 1, "max_time": "00:12:00:00"}, 10),
    ],
    ids=str,
)
def test_the_length_is_that_of_the_run_where_none_is_given(
    options: dict[str, Any], steps: int, shards: Path, tmp_path: Path
) -> None:
    fall = [1, 0.75, 0.5, 0.25]
    assert used_rates(shards, tmp_path, falling, **options) == [1] * (steps - 4) + fall


@pytest.mark.filterwarnings("ignore:.*the hooks will not be called on every batch")
def test_the_length_follows_a_number_of_batches_that_changes_by_epoch(
    shards: Path, tmp_path: Path
) -> None:
    changing = GradientAccumulationScheduler({0: 2, 1: 5})
    found = used_rates(shards, tmp_path, falling, callbacks=(changing,))
    assert found == [1] * 3 + [1, 0.75, 0.5, 0.25]


def test_a_longer_run_on_resume_is_as_if_it_had_been_that_long(
    shards: Path, tmp_path: Path
) -> None:
    whole = used_rates(shards, tmp_path / "whole", falling, max_epochs=3)
    first = used_rates(shards, tmp_path / "run", falling, max_epochs=1)
    rest = used_rates(
        shards, tmp_path / "run", falling, ckpt=tmp_path / "run" / "last.ckpt", max_epochs=3
    )
    assert first[-4:] == [1, 0.75, 0.5, 0.25]
    assert rest == whole[10:]


def test_a_schedule_that_ends_before_the_run_is_told(shards: Path, tmp_path: Path) -> None:
    def early(optimizer: torch.optim.Optimizer) -> WarmupDecay:
        return WarmupDecay(optimizer, total_steps=8, decay_steps=4)

    message = "WarmupDecay: total_steps = 8, the run has 20 optimizer steps: the last 12 have a "
    with pytest.warns(UserWarning, match=f"{message}learning rate of 0"):
        assert used_rates(shards, tmp_path, early)[8:] == [0] * 12


def test_without_a_fall_the_length_is_of_no_effect(shards: Path, tmp_path: Path) -> None:
    def constant(optimizer: torch.optim.Optimizer) -> WarmupDecay:
        return WarmupDecay(optimizer, total_steps=8)

    assert used_rates(shards, tmp_path, constant) == [1] * 20


def test_a_run_too_short_for_its_schedule_is_told(shards: Path, tmp_path: Path) -> None:
    def long(optimizer: torch.optim.Optimizer) -> WarmupDecay:
        return WarmupDecay(optimizer, warmup_steps=15, decay_steps=6)

    message = "warmup_steps = 15 and decay_steps = 6 do not fit into the 20 optimizer steps"
    with pytest.warns(UserWarning, match=f"WarmupDecay: {message}"):
        found = used_rates(shards, tmp_path, long)
    assert all(0 < rate < 1 for rate in found)


def test_a_trial_of_a_few_batches_is_no_reason_to_warn(shards: Path, tmp_path: Path) -> None:
    def long(optimizer: torch.optim.Optimizer) -> WarmupDecay:
        return WarmupDecay(optimizer, warmup_steps=15, decay_steps=6)

    assert len(used_rates(shards, tmp_path, long, fast_dev_run=2)) == 2


@pytest.mark.parametrize("options", [{"max_epochs": -1}, {"max_time": "00:12:00:00"}], ids=str)
def test_a_run_without_an_end_has_nothing_to_fall_towards(
    options: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    endless = {"max_epochs": None, **options}
    with pytest.raises(LightsaeError, match="WarmupDecay: nothing says how long the run is"):
        used_rates(shards, tmp_path, falling, **endless)
    assert not (tmp_path / "last.ckpt").exists()


class StopAfter(Callback):
    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.should_stop = trainer.global_step == 12


def test_a_run_without_an_end_may_rise(shards: Path, tmp_path: Path) -> None:
    def rising(optimizer: torch.optim.Optimizer) -> WarmupDecay:
        return WarmupDecay(optimizer, warmup_steps=3)

    options = {"max_epochs": -1, "callbacks": (StopAfter(),)}
    assert used_rates(shards, tmp_path, rising, **options) == [0.25, 0.5, 0.75] + [1] * 9


def test_a_schedule_of_torch_that_would_raise_within_the_run_is_refused_before(
    shards: Path, tmp_path: Path
) -> None:
    def cycle(optimizer: torch.optim.Optimizer) -> Any:
        return torch_schedules.OneCycleLR(optimizer, max_lr=0.1, total_steps=8)

    message = "OneCycleLR: total_steps = 8, the run has 20 optimizer steps"
    with pytest.raises(LightsaeError, match=message):
        used_rates(shards, tmp_path, cycle)


def test_a_schedule_of_torch_that_is_0_before_the_end_is_told(shards: Path, tmp_path: Path) -> None:
    def polynomial(optimizer: torch.optim.Optimizer) -> Any:
        return torch_schedules.PolynomialLR(optimizer, total_iters=8)

    message = "PolynomialLR: total_iters = 8, the run has 20 optimizer steps"
    with pytest.warns(UserWarning, match=message):
        assert used_rates(shards, tmp_path, polynomial)[8:] == [0] * 12


ENDED: dict[str, tuple[Schedule, str]] = {
    "linear": (
        lambda o: torch_schedules.LinearLR(o, start_factor=1, end_factor=0, total_iters=8),
        "LinearLR: total_iters = 8",
    ),
    "one after another": (
        lambda o: torch_schedules.SequentialLR(
            o,
            [
                torch_schedules.ConstantLR(o, factor=1),
                torch_schedules.PolynomialLR(o, total_iters=5),
            ],
            milestones=[3],
        ),
        r"SequentialLR: milestones\[-1\] \+ total_iters = 8",
    ),
    "at once": (
        lambda o: torch_schedules.ChainedScheduler(
            [torch_schedules.ExponentialLR(o, 0.9), torch_schedules.PolynomialLR(o, total_iters=8)]
        ),
        "ChainedScheduler: total_iters = 8",
    ),
}


@pytest.mark.parametrize(("schedule", "message"), ENDED.values(), ids=ENDED)
def test_schedules_that_are_0_before_the_end_are_told(
    schedule: Schedule, message: str, shards: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=f"{message}, the run has 20 optimizer steps: the last 12"):
        assert used_rates(shards, tmp_path, schedule)[8:] == pytest.approx([0] * 12, abs=1e-15)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            lambda o: torch_schedules.CosineAnnealingLR(o, T_max=8),
            "CosineAnnealingLR: T_max = 8",
        ),
        (
            lambda o: torch_schedules.SequentialLR(
                o,
                [
                    torch_schedules.LinearLR(o, total_iters=3),
                    torch_schedules.CosineAnnealingLR(o, T_max=5),
                ],
                milestones=[3],
            ),
            r"SequentialLR: milestones\[-1\] \+ T_max = 8",
        ),
    ],
    ids=["alone", "after a warm-up"],
)
def test_a_rate_that_rises_again_is_told(
    schedule: Schedule, message: str, shards: Path, tmp_path: Path
) -> None:
    rises = f"{message}, the run has 20 optimizer steps: in the last 11 the learning rate rises"
    with pytest.warns(UserWarning, match=f"{rises} again"):
        rates = used_rates(shards, tmp_path, schedule)
    assert min(rates) == rates[8] < rates[9]


def test_a_fall_at_the_end_within_another_schedule_wants_its_length(
    shards: Path, tmp_path: Path
) -> None:
    def risen(optimizer: torch.optim.Optimizer) -> Any:
        rise = torch_schedules.LinearLR(optimizer, total_iters=5)
        return torch_schedules.SequentialLR(
            optimizer, [rise, WarmupDecay(optimizer, decay_steps=5)], milestones=[5]
        )

    with pytest.raises(LightsaeError, match=r"WarmupDecay within SequentialLR .* its total_steps"):
        used_rates(shards, tmp_path, risen)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch_schedules.CosineAnnealingLR(o, T_max=20),
        lambda o: torch_schedules.CosineAnnealingLR(o, T_max=19),
        lambda o: torch_schedules.LinearLR(o, total_iters=5),
        lambda o: torch_schedules.OneCycleLR(o, max_lr=0.1, total_steps=20),
        lambda o: torch_schedules.SequentialLR(
            o,
            [torch_schedules.LinearLR(o, total_iters=5), torch_schedules.ExponentialLR(o, 0.9)],
            milestones=[5],
        ),
    ],
    ids=["cosine", "cosine down to the last step", "linear", "one cycle", "sequential"],
)
def test_schedules_of_torch_run_to_the_end(
    schedule: Schedule, shards: Path, tmp_path: Path
) -> None:
    assert len(used_rates(shards, tmp_path, schedule)) == 20


def test_a_schedule_that_waits_for_a_metric_is_refused(shards: Path, tmp_path: Path) -> None:
    def plateau(optimizer: torch.optim.Optimizer) -> Any:
        return ReduceLROnPlateau(optimizer, monitor="val/loss")

    with pytest.raises(LightsaeError, match="ReduceLROnPlateau waits for a metric"):
        used_rates(shards, tmp_path, plateau)


def test_a_schedule_that_cannot_be_made_is_named(shards: Path, tmp_path: Path) -> None:
    def cycle(optimizer: torch.optim.Optimizer) -> Any:
        return torch_schedules.OneCycleLR(optimizer, max_lr=0.1)

    with pytest.raises(LightsaeError, match="the schedule cannot be made: You must define"):
        used_rates(shards, tmp_path, cycle)
