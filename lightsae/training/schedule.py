"""Learning-rate schedules, and whether one fits the run it is for."""

import math
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from lightsae.errors import LightsaeError


class WarmupDecay(LambdaLR):
    """Rise linearly, stay, fall linearly to zero; counted in optimizer steps.

    Its state is the position alone: after loading one, the steps given here count, so that a run
    that is made longer falls at its new end.

    Args:
        optimizer: Whose learning rate is scaled.
        total_steps: Steps of the whole run; with decay_steps the rate is 0 from here on. None for
            those of the run, which `SAEModule` gives to `set_length`.
        warmup_steps: Steps of the rise.
        decay_steps: Steps of the fall, the last ones of the run.

    Raises:
        LightsaeError: If total_steps is below 1, or warm-up and decay together are longer.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = WarmupDecay(optimizer, total_steps=10, warmup_steps=2, decay_steps=5)
        >>> [round(schedule.factor(step), 2) for step in (0, 1, 4, 6, 10)]
        [0.33, 0.67, 1.0, 0.8, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup_steps: int = 0,
        decay_steps: int = 0,
    ) -> None:
        if total_steps is not None and total_steps < 1:
            raise LightsaeError(
                f"total_steps = {total_steps}, expected 1 or more, or None for the steps of the run"
            )
        length: float = math.inf if total_steps is None else total_steps
        if min(warmup_steps, decay_steps) < 0 or warmup_steps + decay_steps > length:
            raise LightsaeError(
                f"warmup_steps = {warmup_steps} and decay_steps = {decay_steps} "
                f"do not fit into total_steps = {total_steps}"
            )
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        self._length = length
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Share of the full learning rate at a step."""
        rise = (step + 1) / (self.warmup_steps + 1) if step < self.warmup_steps else 1.0
        left = max(self._length - step, 0)
        return rise * min(1.0, left / self.decay_steps) if self.decay_steps else rise

    def set_length(self, steps: int) -> None:
        """Fall at the end of a run of so many optimizer steps, beginning with the current one."""
        self._length = steps
        self._apply()

    def _apply(self) -> None:
        """Bring the learning rates to the current step; a recorded step reads them in place."""
        rates = [base * self.factor(self.last_epoch) for base in self.base_lrs]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._last_lr = rates

    def state_dict(self) -> dict[str, Any]:
        """The position, without the steps that this one was made with."""
        given = ("total_steps", "warmup_steps", "decay_steps", "_length")
        return {name: value for name, value in super().state_dict().items() if name not in given}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a position."""
        given = ("total_steps", "warmup_steps", "decay_steps", "_length")
        position = {name: value for name, value in state_dict.items() if name not in given}
        super().load_state_dict(position)
        self._apply()


def require_stepped(schedule: Any) -> None:
    """Refuse a schedule that waits for a metric: Lightning saves none, so a run could not go on."""
    if isinstance(schedule, ReduceLROnPlateau):
        raise LightsaeError(
            "ReduceLROnPlateau waits for a metric, which no checkpoint holds: a run that goes on "
            "would not equal one that was never stopped; take a schedule by step"
        )


def fit_to_run(schedule: Any, steps: int | None, trial: bool = False) -> None:
    """Give a schedule the length of its run if it takes one, and say where the two disagree.

    Args:
        schedule: Any of torch's, or `WarmupDecay`.
        steps: Optimizer steps of the run, None where nothing limits them.
        trial: The run is a trial of a few batches, in which no schedule needs to fit.

    Raises:
        LightsaeError: If it falls towards the end of a run that has none, or would raise on the
            way.
    """
    if isinstance(schedule, WarmupDecay) and schedule.total_steps is None:
        _take_length(schedule, steps, trial)
        return
    _require_lengths(schedule)
    end = _end(schedule)
    if end is None or steps is None or end.fits(steps):
        return
    text = (
        f"{type(schedule).__name__}: {end.name} = {end.step}, the run has {steps} optimizer steps"
    )
    if isinstance(schedule, OneCycleLR):
        raise LightsaeError(f"{text}: torch raises an error after its last one")
    if end.rises:
        rank_zero_warn(f"{text}: in the last {steps - end.step - 1} the learning rate rises again")
    else:
        rank_zero_warn(f"{text}: the last {steps - end.step} have a learning rate of 0")


def _take_length(schedule: WarmupDecay, steps: int | None, trial: bool) -> None:
    warmup, decay = schedule.warmup_steps, schedule.decay_steps
    if steps is not None:
        if warmup + decay > steps and not trial:
            rank_zero_warn(
                f"WarmupDecay: warmup_steps = {warmup} and decay_steps = {decay} do not fit into "
                f"the {steps} optimizer steps of the run: the full learning rate is not reached"
            )
        schedule.set_length(steps)
    elif decay:
        raise LightsaeError(
            "WarmupDecay: nothing says how long the run is, at the end of which the rate falls: "
            "set total_steps, or max_epochs or max_steps of the trainer"
        )


class _End(NamedTuple):
    """Where a schedule has come down, as the setting that says so.

    Attributes:
        name: The setting.
        step: Its value: of steps counted from 0, the one that has the lowest rate.
        rises: After it the rate rises again; otherwise it is 0 from here on.
    """

    name: str
    step: int
    rises: bool = False

    def fits(self, steps: int) -> bool:
        """Whether no step of a run of so many has a rate that it should not have."""
        return self.step >= (steps - 1 if self.rises else steps)


def _end(schedule: Any) -> _End | None:
    """Where a schedule is down for good, or should be; None if it never is."""
    if isinstance(schedule, WarmupDecay):
        if not schedule.decay_steps or schedule.total_steps is None:
            return None
        return _End("total_steps", schedule.total_steps)
    if isinstance(schedule, OneCycleLR):
        return _End("total_steps", schedule.total_steps)
    if isinstance(schedule, CosineAnnealingLR):
        return _End("T_max", schedule.T_max, rises=True)
    falls = isinstance(schedule, LinearLR) and schedule.end_factor == 0
    if falls or isinstance(schedule, PolynomialLR):
        return _End("total_iters", schedule.total_iters)
    return _end_of_parts(schedule)


def _end_of_parts(schedule: Any) -> _End | None:
    """That of the last of schedules one after another, the first end of those at once."""
    ends = [end for end in map(_end, _parts(schedule)) if end is not None]
    if isinstance(schedule, ChainedScheduler):
        return min(ends, key=lambda end: end.step, default=None)
    last = _end(_parts(schedule)[-1]) if isinstance(schedule, SequentialLR) else None
    if last is None:
        return None
    start = schedule._milestones[-1] if schedule._milestones else 0
    return _End(f"milestones[-1] + {last.name}", start + last.step, last.rises)


def _parts(schedule: Any) -> list[Any]:
    """The schedules that one is made of."""
    composite = isinstance(schedule, ChainedScheduler | SequentialLR)
    return list(schedule._schedulers) if composite else []


def _require_lengths(schedule: Any) -> None:
    """Refuse a part that would fall at the end of a run, where nothing tells it that end."""
    for part in _parts(schedule):
        if isinstance(part, WarmupDecay) and part.total_steps is None and part.decay_steps:
            raise LightsaeError(
                f"WarmupDecay within {type(schedule).__name__} does not learn how long the run is: "
                "set its total_steps"
            )
        _require_lengths(part)
