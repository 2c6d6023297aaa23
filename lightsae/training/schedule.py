"""Learning-rate schedules."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightsae.errors import LightsaeError


class WarmupDecay(LambdaLR):
    """Rise linearly, stay, fall linearly to zero; counted in optimizer steps.

    Args:
        optimizer: Whose learning rate is scaled.
        total_steps: Steps of the whole run; the rate is 0 from here on.
        warmup_steps: Steps of the rise.
        decay_steps: Steps of the fall, the last ones of the run.

    Raises:
        LightsaeError: If warm-up and decay together are longer than the run.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = WarmupDecay(optimizer, total_steps=10, warmup_steps=2, decay_steps=5)
        >>> [round(schedule.factor(step), 2) for step in (0, 1, 4, 6, 10)]
        [0.33, 0.67, 1.0, 0.8, 0.0]
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, decay_steps: int = 0
    ) -> None:
        if min(warmup_steps, decay_steps) < 0 or warmup_steps + decay_steps > total_steps:
            raise LightsaeError(
                f"warmup_steps = {warmup_steps} and decay_steps = {decay_steps} "
                f"do not fit into total_steps = {total_steps}"
            )
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Share of the full learning rate at a step."""
        rise = (step + 1) / (self.warmup_steps + 1) if step < self.warmup_steps else 1.0
        left = max(self.total_steps - step, 0)
        return rise * min(1.0, left / self.decay_steps) if self.decay_steps else rise
