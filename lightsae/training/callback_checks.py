"""Callbacks that a run of an autoencoder could not end with, refused before it trains."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelPruning

from lightsae.errors import LightsaeError


def refuse_pruning(trainer: Trainer) -> None:
    """Refuse `ModelPruning`, which puts masked copies in the place of parameters.

    Raises:
        LightsaeError: If it is among the trainer's callbacks.
    """
    if any(isinstance(callback, ModelPruning) for callback in _callbacks(trainer)):
        raise LightsaeError(
            "ModelPruning puts masked copies in the place of parameters, which the unit norm of "
            "the decoder and the optimizer do not reach: leave it out"
        )


def require_monitored(trainer: Trainer) -> None:
    """Refuse to wait for a metric of the validation split where nothing is validated.

    Args:
        trainer: One whose training data is loaded, as from `on_train_start` on.

    Raises:
        LightsaeError: Naming the metric.
    """
    batches: list[Any] = list(trainer.num_val_batches)
    unknown = trainer.enable_validation and trainer.val_dataloaders is None
    if unknown or (trainer.enable_validation and sum(batches) > 0):
        return
    for callback in _callbacks(trainer):
        if isinstance(callback, EarlyStopping) and callback.monitor.startswith("val/"):
            raise LightsaeError(
                f"EarlyStopping waits for {callback.monitor}, but no row is validated: set "
                "val_fraction of the data, or monitor a metric of training"
            )


def _callbacks(trainer: Trainer) -> list[Any]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]
