"""How many optimizer steps and rows a run has."""

import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.loggers.logger import DummyLogger


def is_trial(trainer: Trainer) -> bool:
    """Whether a few batches are tried, by `fast_dev_run` or one of Lightning's finders."""
    tried = isinstance(trainer.logger, DummyLogger)
    return tried or bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


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
    epochs, changing = _epochs(trainer), _changing_accumulation(trainer)
    if epochs is not None and changing is not None:
        factors = map(changing.get_accumulate_grad_batches, range(epochs))
        found = sum(math.ceil(trainer.num_training_batches / factor) for factor in factors)
        steps = found if trainer.max_steps < 0 else min(found, trainer.max_steps)
    return int(steps)


def rows_of_run(trainer: Trainer, batch_rows: int) -> int | None:
    """Rows that all processes train on together, at most: every batch counts as a whole one.

    Args:
        trainer: One whose training data is loaded, as from `on_train_start` on.
        batch_rows: Rows of a batch of one process.

    Returns:
        None where `steps_of_run` has none.
    """
    if steps_of_run(trainer) is None:
        return None
    epochs, changing = _epochs(trainer), _changing_accumulation(trainer)
    batches = math.inf if epochs is None else epochs * trainer.num_training_batches
    if trainer.max_steps >= 0:
        factors = [trainer.accumulate_grad_batches]
        factors += [] if changing is None else changing.scheduling.values()
        batches = min(batches, trainer.max_steps * max(factors))
    return int(batches) * batch_rows * trainer.world_size


def _epochs(trainer: Trainer) -> int | None:
    """The limit of epochs, if there is one."""
    epochs = trainer.max_epochs
    return None if epochs is None or epochs < 0 else epochs


def _changing_accumulation(trainer: Trainer) -> GradientAccumulationScheduler | None:
    """What changes the batches per optimizer step from epoch to epoch, if anything does."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            return callback
    return None
