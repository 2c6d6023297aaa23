"""Optimizer steps of a module: taken as they come, or recorded once and replayed."""

from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from lightsae_kernels import raise_if_flagged
from torch import Tensor, nn
from torch.optim import Optimizer

from lightsae.errors import LightsaeError
from lightsae.sae import Objective
from lightsae.training.cuda_graph import (
    CapturedStep,
    CudaRecorder,
    detached,
    read_lr_on_device,
    require_capturable,
    without_autocast,
)
from lightsae.training.module_parts.decoder_upkeep import DecoderUpkeep, leave_decoder_to
from lightsae.training.module_parts.measurement import MeasuredModule
from lightsae.training.optimizer import SAEAdam
from lightsae.training.schedule import require_stepped
from lightsae.training.uncopied_factory import SharedFactory

_MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class OptimizedModule(MeasuredModule):
    """Optimizer and steps of `SAEModule`.

    Attributes:
        make_optimizer: Made from the parameters.
        make_lr_scheduler: Made from the optimizer, or None.
        cuda_graph: Record the whole step once and replay it.
        lr: Learning rate in place of the optimizer's own, or None.
    """

    make_optimizer: SharedFactory
    make_lr_scheduler: SharedFactory | None
    cuda_graph: bool
    lr: float | None
    _captured: CapturedStep | None
    _warming_weight: Tensor | None
    _upkeep: DecoderUpkeep

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimizer and, if there is one, its schedule by step."""
        try:
            optimizer: Optimizer = self.make_optimizer(self.sae.parameters())
        except (TypeError, ValueError) as error:
            raise LightsaeError(f"the optimizer cannot be made: {error}") from error
        for group in optimizer.param_groups if self.lr is not None else []:
            group["lr"] = self.lr
        attached = self._trainer is not None
        clipped = attached and bool(self.trainer.gradient_clip_val)
        mixed = _MIXED.get(str(self.trainer.precision)) if attached else None
        self._upkeep = leave_decoder_to(optimizer, self.sae, clipped, mixed)
        if self.cuda_graph and attached:
            self._record_steps(optimizer)
        if self.make_lr_scheduler is None:
            return optimizer
        try:
            schedule = self.make_lr_scheduler(optimizer)
        except (TypeError, ValueError) as error:
            raise LightsaeError(f"the schedule cannot be made: {error}") from error
        require_stepped(schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _record_steps(self, optimizer: Optimizer) -> None:
        told = (
            self.aux_k, self.regularizer, self.selection, self.reconstruction, self.transcoder,
            self.anchor,
        )  # fmt: skip
        require_capturable(self.trainer, optimizer, *told)
        read_lr_on_device(optimizer, self.device)
        if self._regularizer_weight() is not None:
            self._warming_weight = torch.zeros((), device=self.device)
        self._captured = CapturedStep(self._whole_step, CudaRecorder(self.device))

    def _replayed(self, captured: CapturedStep, activations: Tensor) -> Objective:
        """A recorded step, at the lambda of this step of the run."""
        if self._warming_weight is not None:
            self._warming_weight.fill_(self._regularizer_weight() or 0.0)
        return captured(activations)

    def _whole_step(self, activations: Tensor) -> Objective:
        """Forward, backward and optimizer."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        optimizer.zero_grad(set_to_none=True)
        parts = self._objective(activations, self._update_dead, weight=self._warming_weight)
        with without_autocast(self.device):
            parts.loss.backward()
            self.on_before_optimizer_step(optimizer)
            clip = self.trainer.gradient_clip_val, self.trainer.gradient_clip_algorithm
            self.configure_gradient_clipping(optimizer, *clip)
            optimizer.step()
        return detached(parts)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients of the loss, unless the recorded step had them made."""
        if self._captured is None:
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Forget the gradients; those of a recorded step stay where it writes them."""
        if self._captured is None:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keep the decoder gradient tangent to the unit sphere: summed over ranks, not clipped."""
        if self._upkeep.projects:
            self.sae.project_decoder_gradient_()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip; Lightning refuses fused optimizers in mixed precision even where nothing scales."""
        if self.trainer.precision != "bf16-mixed" or not gradient_clip_val:
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
        elif gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.sae.parameters(), gradient_clip_val)
        else:
            nn.utils.clip_grad_norm_(self.sae.parameters(), gradient_clip_val)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Step, then bring decoder rows back to unit norm."""
        if self._captured is not None:
            optimizer_closure()
            return
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.normalize_after_step()

    def normalize_after_step(self) -> None:
        """Bring decoder rows back to unit norm, unless the optimizer has done it."""
        if self._upkeep.normalizes:
            self.sae.normalize_decoder_()

    def on_train_epoch_end(self) -> None:
        """Raise for NaN and inf that a GPU has met since."""
        raise_if_flagged()

    def on_validation_epoch_start(self) -> None:
        """Callbacks that average weights change them through `.data`; so they do at the ends."""
        self._refresh_copies()

    def on_validation_epoch_end(self) -> None:
        """Raise for NaN and inf that a GPU has met since."""
        raise_if_flagged()
        self._refresh_copies()

    def on_train_end(self) -> None:
        """Callbacks may leave averaged weights behind."""
        self._refresh_copies()

    def _refresh_copies(self) -> None:
        """Outside training nothing tells that weights are changed through `.data`."""
        for optimizer in self._trainer.optimizers if self._trainer is not None else []:
            if isinstance(optimizer, SAEAdam):
                optimizer.refresh_copies()
