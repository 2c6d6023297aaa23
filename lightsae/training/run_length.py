"""How many optimizer steps and batches a run has."""

import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler


def steps_of_run(trainer: Trainer) -> int | None:
    """Optimizer steps from the first to the last, those before resuming included.

    Args:
        trainer: One whose training data is loaded, as from `on_train_start` on.

    Returns:
        None where neither epochs nor steps are limited, or an epoch has no known length.
    """
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps) or steps < 0:
        return None
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not isinstance(callback, GradientAccumulationScheduler) or not epochs or epochs < 0:
            continue
        per_epoch = map(callback.get_accumulate_grad_batches, range(epochs))
        steps = sum(math.ceil(batches / accumulated) for accumulated in per_epoch)
        steps = steps if trainer.max_steps < 0 else min(steps, trainer.max_steps)
    return int(steps)
