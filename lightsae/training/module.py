"""Training a sparse autoencoder under Lightning."""

from inspect import signature
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightsae.activations.loading.activation_batch import as_activation_batch
from lightsae.errors import LightsaeError
from lightsae.sae import (
    AuxK,
    Centre,
    Normalization,
    Reconstruction,
    Regularizer,
    Selection,
    TopK,
    TranscoderOptions,
    VocabularyAnchor,
)
from lightsae.sae.autoencoder import built
from lightsae.sae.losses.vocabulary_anchor import Anchored
from lightsae.sae.normalization import require_known
from lightsae.training.averaged_weights import (
    AveragedDecoder,
    average_weights_alone,
    averages_weights,
)
from lightsae.training.callback_checks import refuse_pruning, require_monitored
from lightsae.training.cuda_graph import CapturedStep
from lightsae.training.dead_latents import tell_dead_after, warn_if_never_dead
from lightsae.training.module_parts.decoder_upkeep import DecoderUpkeep
from lightsae.training.module_parts.optimization import OptimizedModule
from lightsae.training.module_parts.throughput import Throughput
from lightsae.training.optimizer import SAEAdam
from lightsae.training.regularizer_checks import (
    require_embeddings,
    warn_if_never_anchored,
    warn_if_never_risen,
    warn_if_unread,
)
from lightsae.training.run_length import is_trial, rows_of_run, steps_of_run
from lightsae.training.schedule import fit_to_run
from lightsae.training.starting_point import require_started
from lightsae.training.uncopied_factory import SharedFactory


class SAEModule(OptimizedModule):
    """Trains a `SparseAutoencoder` on activations (arXiv 2606.27321).

    Args:
        d_sae: Size of the dictionary.
        selection: Which latents stay on; by default the 32 largest.
        regularizer: Penalty on the activations before selection or on the code, or none.
        aux_k: Auxiliary loss that revives dead latents, or none.
        reconstruction: Loss of nested parts of the code, or the plain one.
        transcoder: Reconstruct another layer's activations, which the data give as targets; it has
            options alone, since sizes, rule and normalization of the `Transcoder` are those above.
            Losses are of normalised targets then, R2 of raw ones.
        anchor: Holds latents near the directions of a vocabulary, or none; training alone reads it.
        d_in: Width of the activations; taken from the data when left out, and checked if given.
        centre: What the decoder bias starts as.
        normalization: What is done to inputs before they are encoded, and undone after; see
            `SparseAutoencoder`. Losses are of normalised inputs, R2 is of raw ones.
        init_rows: Rows of the training split that set the input scale and the decoder bias of an
            autoencoder that is as its constructor made it; a trained one keeps its own.
        optimizer: Made from the parameters; `SAEAdam` also projects and normalizes in its pass.
        lr_scheduler: Made from the optimizer, stepped after every optimizer step.
        cuda_graph: Record the whole step once and replay it; for one GPU, `SAEAdam` and no AuxK.
        start_from: Folder with sae.json and sae.safetensors of a trained autoencoder of the same
            shape and normalization, which a fresh one starts as in training, scale and
            centre included.

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

    def __init__(
        self,
        d_sae: int,
        selection: Selection | None = None,
        regularizer: Regularizer | None = None,
        aux_k: AuxK | None = None,
        reconstruction: Reconstruction | None = None,
        transcoder: TranscoderOptions | None = None,
        anchor: VocabularyAnchor | None = None,
        d_in: int | None = None,
        centre: Centre = "mean",
        normalization: Normalization = "variance",
        init_rows: int = 32768,
        optimizer: OptimizerCallable = lambda p: SAEAdam(p, lr=4e-4),
        lr_scheduler: LRSchedulerCallable | None = None,
        cuda_graph: bool = False,
        start_from: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(
            ignore=[
                "selection", "regularizer", "aux_k", "reconstruction", "transcoder", "anchor",
                "optimizer", "lr_scheduler", "start_from",
            ]
        )  # fmt: skip
        for name, size in (("d_sae", d_sae), ("init_rows", init_rows)):
            if size < 1:
                raise LightsaeError(f"{name} must be at least 1, got {size}")
        self.give_selection(built(TopK(32) if selection is None else selection, d_sae))
        if self.selection.k > d_sae:
            raise LightsaeError(f"k = {self.selection.k} is larger than d_sae = {d_sae}")
        self.d_sae = d_sae
        self.regularizer = regularizer
        self.aux_k = aux_k
        self.reconstruction = reconstruction
        self.transcoder = transcoder
        self.anchor = anchor
        require_known(normalization)
        self.centre: Centre = centre
        self.normalization: Normalization = normalization
        self.init_rows = init_rows
        self.start_from = start_from
        self.make_optimizer = SharedFactory(optimizer)
        self.make_lr_scheduler = None if lr_scheduler is None else SharedFactory(lr_scheduler)
        self.cuda_graph = cuda_graph
        self.last_anchored: Anchored | None = None
        self._captured: CapturedStep | None = None
        self._warming_weight: Tensor | None = None
        self._throughput = Throughput()
        self._began = False
        self._shards: dict[str, str] = {}
        self._upkeep = DecoderUpkeep()
        self.lr: float | None = None
        if d_in is not None and (transcoder is None or transcoder.d_out is not None):
            self._build(d_in)

    def configure_callbacks(self) -> list[Callback]:
        """What completes a callback that averages weights, where there is one."""
        refuse_pruning(self.trainer)
        return [AveragedDecoder()] if averages_weights(self.trainer) else []

    def setup(self, stage: str) -> None:
        """Compare the data with what the regularizer reads."""
        require_embeddings(self.regularizer, getattr(self.trainer, "datamodule", None))

    def on_train_start(self) -> None:
        """Compare the run with its callbacks and schedules, which were made before its data."""
        require_monitored(self.trainer)
        require_started(self.start_from, self.sae)
        steps, trial = steps_of_run(self.trainer), is_trial(self.trainer)
        for config in self.trainer.lr_scheduler_configs:
            fit_to_run(config.scheduler, steps, trial)
        if not trial:
            warn_if_never_risen(self.regularizer, steps)
            warn_if_never_risen(self.anchor, steps)
            warn_if_never_anchored(self.anchor, steps)
        self._began = trial

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Compare the first batch with what AuxK waits for and the regularizer reads."""
        taken = None if self._began else as_activation_batch(batch, self.sae.d_in)
        if taken is not None:
            warn_if_unread(self.regularizer, taken.embeddings)
            tell_dead_after(self.aux_k, self.d_sae, self.selection.k)
        if taken is not None and self.aux_k is not None:
            rows = rows_of_run(self.trainer, len(taken.activations))
            counters = self.dead_latents.tokens_since_fired
            warn_if_never_dead(counters, self.dead_after, rows)
        self._began = True

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        batch = self.taken(batch)
        if self._captured is None:
            parts = self.objective_of(batch)
        else:
            parts = self._replayed(self._captured, batch.activations)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.trainer.global_step + 1) % every == 0:
            self._log_training(parts, batch)
        return parts.loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep averaged weights, where there are some, and what builds the module again."""
        if self._trainer is not None:
            average_weights_alone(self.trainer, self, checkpoint)
        super().on_save_checkpoint(checkpoint)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has of this module: neither the trainer nor a recorded step."""
        return {**super().__getstate__(), "_captured": None}


# Processes that are spawned find functions by name.
_default_optimizer = signature(SAEModule).parameters["optimizer"].default
_default_optimizer.__qualname__ = "_default_optimizer"
