"""Weights averaged by a callback of Lightning: decoder rows of unit norm wherever they are used."""

from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor, nn

from lightsae.module_names import plain_name

DECODER = "sae.W_dec"
# In a checkpoint: what training goes on with, and the decoder's mean as the callback has it.
CURRENT, MEAN_DECODER = "current_model_state", "averaged_decoder"


class Average(NamedTuple):
    """What a callback has averaged so far.

    Attributes:
        state: Its own tensors by their names in the module; writing to them changes the average.
        begun: Whether anything was averaged; before, they are as the module was when fit began.
        swapped: Whether the callback puts them in place of the trained weights for validation.
    """

    state: dict[str, Tensor]
    begun: bool
    swapped: bool

    def in_place_of(self, trained: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is used instead of the trained weights; these, while nothing is averaged."""
        if not self.begun:
            return trained
        return {**trained, **self.state, DECODER: unit_rows(self.state[DECODER])}


def averages_weights(trainer: Trainer) -> bool:
    """Whether one of the trainer's callbacks averages weights."""
    return bool(_averaging(trainer))


def _averaging(trainer: Trainer) -> list[WeightAveraging | StochasticWeightAveraging]:
    kinds = (WeightAveraging, StochasticWeightAveraging)
    return [c for c in trainer.callbacks if isinstance(c, kinds)]  # type: ignore[attr-defined]


def find_average(trainer: Trainer, module: LightningModule) -> Average | None:
    """The average that one of the trainer's callbacks keeps, if any."""
    for callback in _averaging(trainer):
        model: Any = callback._average_model
        if model is None:
            continue
        if isinstance(callback, WeightAveraging):
            return Average(_tensors(model.module), bool(model.n_averaged > 0), swapped=True)
        state = _tensors(model)
        means = {plain_name(name): state[plain_name(name)] for name, _ in module.named_parameters()}
        begun = callback.n_averaged or callback._init_n_averaged
        return Average(means, bool(begun), swapped=False)
    return None


def unit_rows(W_dec: Tensor) -> Tensor:
    """Rows divided by their norms, [d_sae, d_in]."""
    norms: Tensor = torch.linalg.vector_norm(W_dec, dim=1, keepdim=True)
    return W_dec / norms.clamp_min(torch.finfo(norms.dtype).tiny)


def average_weights_alone(
    trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
) -> None:
    """Put what is used into a checkpoint without training state: no callback is asked for those."""
    average = None if "callbacks" in checkpoint else find_average(trainer, module)
    if average is not None:
        checkpoint["state_dict"] = average.in_place_of(_plainly(checkpoint["state_dict"]))


class AveragedDecoder(Callback):
    """Completes `WeightAveraging` and `StochasticWeightAveraging` for an autoencoder.

    A mean of unit rows is shorter than one. The mean is left to the callback as it is; what takes
    the place of the trained weights (in validation, in the `state_dict` of checkpoints, at the end)
    is a copy with unit rows. Before anything was averaged, that is the trained weights.
    """

    def __init__(self) -> None:
        self._mean: Tensor | None = None
        self._saved: dict[str, Tensor] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the callback copy the module once its width is known, and as wide as it will be."""
        pl_module.configure_model()
        if trainer.precision == "64-true":
            pl_module.double()
        for callback in _averaging(trainer):
            callback.setup(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The callback has swapped its mean in."""
        average = find_average(trainer, pl_module)
        if average is None or not average.swapped:
            return
        if average.begun:
            self._mean = _decoder(pl_module).clone()
            _decoder(pl_module).copy_(unit_rows(self._mean))
        else:
            _put(average.state, _tensors(pl_module))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The callback has swapped the trained weights back."""
        average = find_average(trainer, pl_module)
        if average is not None and self._mean is not None:
            average.state[DECODER].copy_(self._mean)
        self._mean = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What training may end with is never less than the trained weights."""
        average = find_average(trainer, pl_module)
        if average is not None and not average.begun:
            trained = _tensors(pl_module)
            _put({name: trained[name] for name in average.state}, average.state)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training ends with the averaged weights."""
        average = find_average(trainer, pl_module)
        if average is not None and average.begun:
            _put(average.state, _tensors(pl_module))
            _decoder(pl_module).copy_(unit_rows(average.state[DECODER]))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what is used under `state_dict`, and beside it what training goes on with."""
        average = find_average(trainer, pl_module)
        if average is None:
            return
        current = _plainly(checkpoint.get(CURRENT, checkpoint["state_dict"]))
        checkpoint["state_dict"] = average.in_place_of(current)
        if average.begun:
            checkpoint |= {CURRENT: current, MEAN_DECODER: average.state[DECODER]}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the trained weights and the mean as it was."""
        if not trainer.training or CURRENT not in checkpoint:
            return
        self._saved = checkpoint["state_dict"]
        pl_module.load_state_dict(checkpoint[CURRENT])
        average = find_average(trainer, pl_module)
        if average is not None and MEAN_DECODER in checkpoint:
            average.state[DECODER].copy_(checkpoint[MEAN_DECODER])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There are steps to take, after which the average will be another."""
        self._saved = None
        for callback in _averaging(trainer):
            # Lightning leaves this out within an epoch; the callback goes on from its state there.
            if isinstance(callback, StochasticWeightAveraging) and _within_epoch(trainer):
                callback.on_train_epoch_start(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had nothing left to do ends with what it ended with before."""
        if self._saved is not None:
            pl_module.load_state_dict(self._saved)
            self._saved = None


def _within_epoch(trainer: Trainer) -> bool:
    return bool(trainer.fit_loop.restarted_mid_epoch)


def _plainly(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that they have where nothing is compiled."""
    return {plain_name(name): tensor for name, tensor in state.items()}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return _plainly(module.state_dict())


def _decoder(module: nn.Module) -> Tensor:
    return _tensors(module)[DECODER]


def _put(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    """Write tensors into those of the same name."""
    for name, tensor in source.items():
        target[name].copy_(tensor)
