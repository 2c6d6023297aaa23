"""The optimizers and schedules of a stack, one to Lightning, and Adam over a leading axis."""

from collections.abc import Iterator, Sequence
from typing import Any

from lightsae_kernels import AdamSettings, adam_step_
from torch import Tensor
from torch.optim import Optimizer

from lightsae.training.optimizer import SAEAdam, settings_of
from lightsae.training.stacked.parameters import NAMES, ParameterStack


class StackedOptimizer(Optimizer):
    """The optimizers of all members as one, whose state is a list of theirs.

    Args:
        optimizers: One of each member.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.param_groups = groups
        self.members = list(optimizers)

    def step(self, closure: Any = None) -> Any:
        """Step every member."""
        loss = None if closure is None else closure()
        for optimizer in self.members:
            optimizer.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of each member's optimizer."""
        return {"members": [optimizer.state_dict() for optimizer in self.members]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give each member its own."""
        for optimizer, state in zip(self.members, state_dict["members"], strict=True):
            optimizer.load_state_dict(state)


class StackedSchedule:
    """The schedules of all members as one, whose state is a list of theirs.

    Args:
        schedules: One of each member.
        optimizer: Theirs.
    """

    def __init__(self, schedules: Sequence[Any], optimizer: StackedOptimizer) -> None:
        self.members = list(schedules)
        self.optimizer = optimizer

    def step(self) -> None:
        """Step every member's."""
        for schedule in self.members:
            schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of each member's schedule."""
        return {"members": [schedule.state_dict() for schedule in self.members]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give each member its own."""
        for schedule, state in zip(self.members, state_dict["members"], strict=True):
            schedule.load_state_dict(state)


def step_stack(stack: ParameterStack, optimizers: Sequence[SAEAdam]) -> None:
    """One step of Adam of every member: neighbours with equal settings are stepped as one.

    Args:
        stack: With its moments.
        optimizers: Of its members, in order; their learning rates may differ.
    """
    assert stack.step is not None
    stack.step += 1
    for optimizer in optimizers:
        optimizer._opt_called = True  # type: ignore[attr-defined]  # schedules look for it
    for part, settings in _runs([settings_of(each.param_groups[0]) for each in optimizers]):
        for name in NAMES:
            value, gradient, first, second = (
                _as_rows(tensor[part])
                for tensor in (stack.values[name], stack.gradients[name],
                               *stack.moments[name].values())
            )  # fmt: skip
            if name == "W_dec":
                unit = settings._replace(project=True, normalize=True)
                adam_step_(value, gradient, first, second, stack.step, unit)
            else:
                adam_step_(value, gradient, first, second, stack.step, settings)


def _runs(settings: Sequence[AdamSettings]) -> Iterator[tuple[slice, AdamSettings]]:
    """Neighbours with equal settings."""
    first = 0
    for place in range(1, len(settings) + 1):
        if place == len(settings) or settings[place] != settings[first]:
            yield slice(first, place), settings[first]
            first = place


def _as_rows(tensor: Tensor) -> Tensor:
    """Members' matrices below each other; vectors one after the other."""
    return tensor.flatten(0, 1)
