"""Training a sparse autoencoder under Lightning."""

import logging
from collections.abc import Mapping
from inspect import signature
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from lightsae_kernels import Encoded, raise_if_flagged
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.optim import Optimizer
from torchmetrics import Metric

from lightsae.activations import ActivationBatch
from lightsae.activations.loading.activation_batch import as_activation_batch
from lightsae.errors import LightsaeError
from lightsae.metrics import R2
from lightsae.module_names import named_as
from lightsae.sae import (
    AuxK,
    Centre,
    CodeRegularizer,
    Normalization,
    Objective,
    Regularizer,
    Selection,
    SparseAutoencoder,
    SparseCode,
    TopK,
    objective,
)
from lightsae.sae.normalization import require_known
from lightsae.training.averaged_weights import (
    AveragedDecoder,
    average_weights_alone,
    averages_weights,
)
from lightsae.training.callback_checks import refuse_pruning, require_monitored
from lightsae.training.checkpoints.module_checkpoint import CheckpointedModule
from lightsae.training.checkpoints.provenance import (
    shards_of,
)
from lightsae.training.cuda_graph import (
    CapturedStep,
    CudaRecorder,
    detached,
    read_lr_on_device,
    require_capturable,
    without_autocast,
)
from lightsae.training.dead_latents import DeadLatentTracker, warn_if_never_dead
from lightsae.training.evaluation_metrics import EvaluationMetrics
from lightsae.training.loader_sample import sample_of_loader, width_of_loader
from lightsae.training.optimizer import SAEAdam
from lightsae.training.rank_weights import share_of_rows
from lightsae.training.run_length import is_trial, rows_of_run, steps_of_run
from lightsae.training.schedule import fit_to_run, require_stepped
from lightsae.training.uncopied_factory import SharedFactory
from lightsae.training.untrained_check import is_untrained

_IN_BAR = ("train/loss", "train/r2")
_MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

# Lightning's own loggers are silent on the command line.
_tell = rank_zero_only(logging.getLogger("lightsae.training").info)


class SAEModule(CheckpointedModule):
    """Trains a `SparseAutoencoder` on activations (arXiv 2606.27321).

    Args:
        d_sae: Size of the dictionary.
        selection: Which latents stay on; by default the 32 largest.
        regularizer: Penalty on the activations before selection or on the code, or none.
        aux_k: Auxiliary loss that revives dead latents, or none.
        d_in: Width of the activations; taken from the data when left out, and checked if given.
        centre: What the decoder bias starts as.
        normalization: What is done to inputs before they are encoded, and undone after; see
            `SparseAutoencoder`. Losses are of normalised inputs, R2 is of raw ones.
        init_rows: Rows of the training split that set the input scale and the decoder bias of an
            autoencoder that is as its constructor made it; a trained one keeps its own.
        optimizer: Made from the parameters; `SAEAdam` also projects and normalizes in its pass.
        lr_scheduler: Made from the optimizer, stepped after every optimizer step.
        cuda_graph: Record the whole step once and replay it; for one GPU, `SAEAdam` and no AuxK.

    Attributes:
        sae: The autoencoder, once the width is known.
        dead_latents: Tokens since each latent fired; part of every checkpoint.
        lr: Learning rate in place of the optimizer's own, where Lightning's finder has set one.

    Raises:
        LightsaeError: If a size is smaller than 1, d_in disagrees with the data, or k with d_sae.

    Example:
        >>> module = SAEModule(d_sae=64, selection=TopK(4), d_in=8)
        >>> module.sae.d_sae
        64
    """

    sae: SparseAutoencoder
    dead_latents: DeadLatentTracker

    def __init__(
        self,
        d_sae: int,
        selection: Selection | None = None,
        regularizer: Regularizer | None = None,
        aux_k: AuxK | None = None,
        d_in: int | None = None,
        centre: Centre = "mean",
        normalization: Normalization = "variance",
        init_rows: int = 32768,
        optimizer: OptimizerCallable = lambda p: SAEAdam(p, lr=4e-4),
        lr_scheduler: LRSchedulerCallable | None = None,
        cuda_graph: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(
            ignore=["selection", "regularizer", "aux_k", "optimizer", "lr_scheduler"]
        )
        self.selection: Selection = TopK(32) if selection is None else selection
        for name, size in (("d_sae", d_sae), ("init_rows", init_rows)):
            if size < 1:
                raise LightsaeError(f"{name} must be at least 1, got {size}")
        if self.selection.k > d_sae:
            raise LightsaeError(f"k = {self.selection.k} is larger than d_sae = {d_sae}")
        self.d_sae = d_sae
        self.regularizer = regularizer
        self.aux_k = aux_k
        require_known(normalization)
        self.centre: Centre = centre
        self.normalization: Normalization = normalization
        self.init_rows = init_rows
        self.make_optimizer = SharedFactory(optimizer)
        self.make_lr_scheduler = None if lr_scheduler is None else SharedFactory(lr_scheduler)
        self.cuda_graph = cuda_graph
        self._captured: CapturedStep | None = None
        self._warming_weight: Tensor | None = None
        self._clock: tuple[float, int] | None = None
        self._began = False
        self._shards: dict[str, str] = {}
        self._projects = self._normalizes = True
        self.lr: float | None = None
        if d_in is not None:
            self._build(d_in)

    def configure_model(self) -> None:
        """Take the width from the data, and for a fresh autoencoder scale and decoder bias."""
        if self._trainer is None:
            if not hasattr(self, "sae"):
                raise LightsaeError("d_in is not given and there is no data that tells it")
            return
        data = getattr(self.trainer, "datamodule", None)
        self._shards = shards_of(data)
        found: int | None = getattr(data, "d_in", None)
        if not hasattr(self, "sae"):
            self._build(width_of_loader(self.trainer) if found is None else found)
        elif found is not None and found != self.sae.d_in:
            raise LightsaeError(
                f"the model has d_in = {self.sae.d_in}, the activations in "
                f"{getattr(data, 'path', 'the data')} have d_in = {found}"
            )
        fresh = not self.trainer.ckpt_path and is_untrained(self.sae)
        if self.trainer.training and fresh:
            self._initialize(data)

    def _initialize(self, data: Any) -> None:
        """Scale and decoder bias from a sample of the training data."""
        if hasattr(data, "training_sample"):
            self.sae.initialize_(data.training_sample(self.init_rows), self.centre)
        elif self.normalization != "none":
            sample = sample_of_loader(self.trainer, self.init_rows, self.sae.d_in)
            self.sae.initialize_(sample, self.centre)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has of this module: neither the trainer nor a recorded step."""
        return {**super().__getstate__(), "_captured": None}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take over weights, and the width where there is none; either may be compiled."""
        if not hasattr(self, "sae") and "sae.W_enc" in state_dict:
            self._build(state_dict["sae.W_enc"].shape[1])
        return super().load_state_dict(named_as(self.state_dict(), state_dict), strict, assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep averaged weights, where there are some, and what builds the module again."""
        if self._trainer is not None:
            average_weights_alone(self.trainer, self, checkpoint)
        super().on_save_checkpoint(checkpoint)

    def configure_callbacks(self) -> list[Callback]:
        """What completes a callback that averages weights, where there is one."""
        refuse_pruning(self.trainer)
        return [AveragedDecoder()] if averages_weights(self.trainer) else []

    def _build(self, d_in: int) -> None:
        self.sae = SparseAutoencoder(d_in, self.d_sae, self.selection, self.normalization)
        self.dead_latents = DeadLatentTracker(self.d_sae)
        self.train_r2 = R2(d_in, dist_sync_on_step=True)
        self.val_metrics = EvaluationMetrics(d_in, self.d_sae)
        self.test_metrics = EvaluationMetrics(d_in, self.d_sae)
        self.hparams["d_in"] = d_in

    @property
    def process_group(self) -> ProcessGroup | None:
        """All ranks, or None when there is one."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return dist.group.WORLD
        return None

    def forward(self, x: Tensor) -> SparseCode:
        """Code of activations x, [B, d_in]."""
        return self.sae.encode(x)

    def taken(self, batch: Any) -> ActivationBatch:
        """What any loader delivers, in the parameters' dtype unless autocast takes it as it is."""
        taken = as_activation_batch(batch, self.sae.d_in)
        x, dtype = taken.activations, self.sae.W_enc.dtype
        autocast = torch.is_autocast_enabled(x.device.type)
        if x.dtype == dtype or (autocast and x.dtype != torch.float64):
            return taken
        return taken._replace(activations=x.to(dtype))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        batch = self.taken(batch)
        if self._captured is None:
            parts = self.objective_of(batch)
        else:
            if self._warming_weight is not None:
                self._warming_weight.fill_(self._regularizer_weight() or 0.0)
            parts = self._captured(batch.activations)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.trainer.global_step + 1) % every == 0:
            self._log_training(parts, batch)
        return parts.loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Gradients of the loss, unless the recorded step had them made."""
        if self._captured is None:
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Forget the gradients; those of a recorded step stay where it writes them."""
        if self._captured is None:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

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

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Keep the decoder gradient tangent to the unit sphere: summed over ranks, not clipped."""
        if self._projects:
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
        if self._normalizes:
            self.sae.normalize_decoder_()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimizer and, if there is one, its schedule by step."""
        try:
            optimizer: Optimizer = self.make_optimizer(self.sae.parameters())
        except (TypeError, ValueError) as error:
            raise LightsaeError(f"the optimizer cannot be made: {error}") from error
        for group in optimizer.param_groups if self.lr is not None else []:
            group["lr"] = self.lr
        self._leave_decoder_to(optimizer)
        if self.cuda_graph and self._trainer is not None:
            require_capturable(self.trainer, optimizer, self.aux_k, self.regularizer)
            read_lr_on_device(optimizer, self.device)
            if self._regularizer_weight() is not None:
                self._warming_weight = torch.zeros((), device=self.device)
            self._captured = CapturedStep(self._whole_step, CudaRecorder(self.device))
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

    def on_train_start(self) -> None:
        """Compare the run with its callbacks and schedules, which were made before its data."""
        require_monitored(self.trainer)
        steps, trial = steps_of_run(self.trainer), is_trial(self.trainer)
        for config in self.trainer.lr_scheduler_configs:
            fit_to_run(config.scheduler, steps, trial)
        self._began = trial

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Compare the first batch with what AuxK waits for."""
        if not self._began and self.aux_k is not None:
            activations = as_activation_batch(batch, self.sae.d_in).activations
            rows = rows_of_run(self.trainer, len(activations))
            counters = self.dead_latents.tokens_since_fired
            warn_if_never_dead(counters, self.dead_after, rows)
            if self.aux_k.dead_after is None:
                _tell(
                    f"aux_k: a latent is dead after {self.dead_after:,} rows without firing "
                    f"({self.aux_k.dead_after_multiple:g} d_sae / k)"
                )
        self._began = True

    def _leave_decoder_to(self, optimizer: Optimizer) -> None:
        """Projection and unit norm go with the step, but what is clipped is projected before."""
        stepped = [p for group in optimizer.param_groups for p in group["params"]]
        trained = {id(parameter) for parameter in stepped if parameter.requires_grad}
        decoder, ours = id(self.sae.W_dec) in trained, isinstance(optimizer, SAEAdam)
        clipped = self._trainer is not None and bool(self.trainer.gradient_clip_val)
        self._normalizes = decoder and not ours
        self._projects = decoder and (clipped or not ours)
        if not isinstance(optimizer, SAEAdam):
            return
        if decoder:
            optimizer.keep_unit_rows(self.sae.W_dec, project=not clipped)
        dtype = _MIXED.get(str(self.trainer.precision)) if self._trainer is not None else None
        if dtype is not None and id(self.sae.W_enc) in trained:
            optimizer.keep_copy(self.sae.W_enc, self.sae.keep_narrow("W_enc", dtype))
        if dtype is not None and decoder and self.sae.W_dec.is_cuda:
            # The CPU gathers rows of float32.
            optimizer.keep_copy(self.sae.W_dec, self.sae.keep_narrow("W_dec", dtype))

    def on_train_epoch_start(self) -> None:
        """Leave validation out of the throughput."""
        self._clock = None

    def on_train_batch_end(self, *args: Any) -> None:
        """Start the throughput clock with the first step of an epoch."""
        if self._clock is None:
            self._clock = perf_counter(), self.trainer.global_step

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

    def on_test_epoch_end(self) -> None:
        """Raise for NaN and inf that a GPU has met since."""
        raise_if_flagged()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Metrics of the validation split."""
        self._evaluate(self.taken(batch), self.val_metrics, "val/")

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Metrics of the test split.

        Returns:
            For callbacks: the activations "x", their "code" and the reconstruction "x_hat".
        """
        return self._evaluate(self.taken(batch), self.test_metrics, "test/")

    def predict_step(self, batch: Any, batch_idx: int) -> SparseCode:
        """Code of a batch."""
        return self.sae.encode(self.taken(batch).activations)

    def objective_of(self, batch: ActivationBatch) -> Objective:
        """Loss and its parts at a batch of training, this rank's share; counts who fired."""
        share = share_of_rows(batch.activations, self.process_group)
        return self._objective(
            batch.activations, self._update_dead, batch.embeddings, self._regularizer_weight()
        ).weighted(share)

    def _objective(
        self,
        activations: Tensor,
        dead: Any = None,
        embeddings: Tensor | None = None,
        weight: float | Tensor | None = None,
    ) -> Objective:
        regularizer, compared = self.regularizer, None
        if isinstance(regularizer, CodeRegularizer):
            compared = regularizer.chosen_embeddings(activations, embeddings)
        return objective(
            self.sae,
            self.sae.normalize(activations).x,
            regularizer=regularizer,
            aux_k=self.aux_k,
            dead=dead,
            process_group=self.process_group,
            embeddings=compared,
            regularizer_weight=weight,
        )

    def _regularizer_weight(self) -> float | None:
        """Lambda at this step of the run where it has a warm-up; None where it is the full one."""
        if self.regularizer is None or not self.regularizer.weight_warmup:
            return None
        return self.regularizer.weight_at(self.trainer.global_step)

    def _update_dead(self, encoded: Encoded) -> Tensor:
        settings = AuxK() if self.aux_k is None else self.aux_k
        self.dead_latents.update(encoded, settings.fired_above, self.process_group)
        return self.dead_latents.dead(self.dead_after)

    @property
    def dead_after(self) -> int:
        """Rows without firing after which a latent is dead."""
        settings = AuxK() if self.aux_k is None else self.aux_k
        return settings.dead_after_rows(self.d_sae, self.selection.k)

    def _evaluate(
        self, batch: ActivationBatch, metrics: EvaluationMetrics, prefix: str
    ) -> dict[str, Any]:
        found = self.measure(batch, metrics)
        for name, metric in metrics.named_children():
            assert isinstance(metric, Metric)
            self.log(f"{prefix}{name}", metric, on_epoch=True, batch_size=len(batch.activations))
        return found

    def measure(self, batch: ActivationBatch, metrics: EvaluationMetrics) -> dict[str, Any]:
        """Add a batch of an evaluation to its metrics; its activations, code and x_hat."""
        parts = self._objective(batch.activations, embeddings=batch.embeddings)
        values, indices = parts.encoded.values, parts.encoded.indices
        x_hat = self._reconstruction(parts, batch)
        metrics.r2.update(x_hat=x_hat, x=batch.activations)
        metrics.l0.update(values)
        metrics.dead.update(values, indices)
        metrics.loss.update(parts.loss, len(values))
        metrics.reconstruction.update(parts.reconstruction, len(values))
        metrics.penalty.update(parts.penalty, len(values))
        code = SparseCode(values, indices, self.d_sae)
        return {"x": batch.activations, "code": code, "x_hat": x_hat}

    def _reconstruction(self, parts: Objective, batch: ActivationBatch) -> Tensor:
        """x_hat in the units of the activations."""
        x = batch.activations
        return x - self.sae.residual_in_units_of(x, parts.residual)

    @torch.no_grad()
    def training_metrics(self, parts: Objective, batch: ActivationBatch) -> dict[str, Any]:
        """What is logged of a step, by name."""
        x = batch.activations
        share = share_of_rows(x, self.process_group)
        logged = {
            "train/loss": parts.loss,
            "train/r2": self.train_r2(x_hat=self._reconstruction(parts, batch), x=x),
            "train/reconstruction": parts.reconstruction,
            "train/aux_k": parts.aux_k,
            "train/penalty": parts.penalty,
            "train/l0": (parts.encoded.values > 0).sum() / len(x) * share,
            "train/dead_fraction": self.dead_latents.dead(self.dead_after).float().mean(),
            "train/batch_active_fraction": parts.encoded.batch_active.float().mean(),
        }
        weight = self._regularizer_weight()
        if weight is not None:
            logged["train/regularizer_weight"] = torch.tensor(weight)
        self.train_r2.reset()
        return logged

    def _log_training(self, parts: Objective, batch: ActivationBatch) -> None:
        rows = len(batch.activations)
        for name, value in self.training_metrics(parts, batch).items():
            self.log(
                name, value, prog_bar=name in _IN_BAR, on_step=True, on_epoch=False,
                sync_dist=True, batch_size=rows,
            )  # fmt: skip
        self._log_throughput(rows)

    def _log_throughput(self, rows: int) -> None:
        now, step = perf_counter(), self.trainer.global_step
        if self._clock is not None and step > self._clock[1]:
            tokens = rows * self.trainer.world_size * self.trainer.accumulate_grad_batches
            rate = tokens * (step - self._clock[1]) / (now - self._clock[0])
            self.log("train/tokens_per_second", rate, prog_bar=True, batch_size=rows)
        self._clock = now, step


# Processes that are spawned find functions by name.
_default_optimizer = signature(SAEModule).parameters["optimizer"].default
_default_optimizer.__qualname__ = "_default_optimizer"
