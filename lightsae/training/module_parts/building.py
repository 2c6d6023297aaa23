"""The autoencoder of a module: made once its width is known, centred on the data if it is fresh."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from lightsae.activations import ActivationBatch
from lightsae.activations.loading.activation_batch import as_activation_batch
from lightsae.errors import LightsaeError
from lightsae.metrics import R2
from lightsae.module_names import named_as
from lightsae.sae import (
    Centre,
    Normalization,
    Selection,
    SparseAutoencoder,
    SparseCode,
    Transcoder,
)
from lightsae.training.checkpoints.module_checkpoint import CheckpointedModule
from lightsae.training.checkpoints.provenance import shards_of
from lightsae.training.dead_latents import DeadLatentTracker
from lightsae.training.evaluation_metrics import EvaluationMetrics
from lightsae.training.loader_sample import sample_of_loader, widths_of_loader
from lightsae.training.starting_point import start_from
from lightsae.training.untrained_check import is_untrained


class BuiltModule(CheckpointedModule):
    """Building of `SAEModule`, and the batches it takes.

    Attributes:
        d_sae: Size of the dictionary.
        centre: What the decoder bias starts as.
        init_rows: Rows of the training split that set the input scale and the decoder bias.
        start_from: Folder of the autoencoder that a fresh one starts as, or None.
        sae: The autoencoder, once the width is known.
        dead_latents: Tokens since each latent fired.
    """

    d_sae: int
    normalization: Normalization
    centre: Centre
    init_rows: int
    start_from: str | None
    sae: SparseAutoencoder
    dead_latents: DeadLatentTracker

    def give_selection(self, selection: Selection) -> None:
        """Take the rule that the autoencoder is to be built with."""
        # Beside the submodules: what a rule has to learn is the autoencoder's.
        object.__setattr__(self, "_given_selection", selection)

    @property
    def selection(self) -> Selection:
        """The rule of the autoencoder; before it is built the one it is to be built with."""
        sae = self._modules.get("sae")
        if isinstance(sae, SparseAutoencoder):
            return sae.selection
        given: Selection = self.__dict__["_given_selection"]
        return given

    def configure_model(self) -> None:
        """Take the width from the data, and for a fresh autoencoder scale and decoder bias."""
        if self._trainer is None:
            if not hasattr(self, "sae"):
                raise LightsaeError("d_in is not given and there is no data that tells it")
            return
        data = getattr(self.trainer, "datamodule", None)
        self._shards = shards_of(data)
        if data is not None and not self.trainer.predicting:
            self._require_targets(data)
        d_in: Any = getattr(data, "d_in", None)
        d_out: int | None = getattr(data, "d_out", None)
        if not hasattr(self, "sae") and d_in is None:
            d_in, d_out = widths_of_loader(self.trainer)
        self._require_widths(data, d_in, d_out)
        if not hasattr(self, "sae"):
            self._build(d_in, d_out)
        if not self.trainer.training:
            return
        # Of an earlier run; a checkpoint that is gone on from brings its own.
        self.last_anchored = None
        self.require_anchor()
        fresh = not self.trainer.ckpt_path and is_untrained(self.sae)
        if self.start_from is not None:
            self.start = start_from(self.start_from, self.sae)
        elif fresh:
            self._initialize(data)

    def _require_targets(self, data: Any) -> None:
        """Refuse a transcoder without targets, and targets that nothing would read."""
        name, there = getattr(data, "path", "the data"), getattr(data, "d_out", None) is not None
        if self.transcoder is not None and hasattr(data, "d_in") and not there:
            raise LightsaeError(
                f"{name}: has no targets, which model.transcoder reconstructs: give data.targets, "
                "the folder of another layer"
            )
        if self.transcoder is None and there:
            raise LightsaeError(
                f"{name}: comes with targets, which only a transcoder reconstructs: give "
                "model.transcoder, or leave out data.targets"
            )

    def _require_widths(self, data: Any, d_in: int | None, d_out: int | None) -> None:
        """Refuse data of other widths than the model has or was given."""
        sae = getattr(self, "sae", None)
        own = self.hparams["d_in"] if sae is None else sae.d_in
        own_out = None if self.transcoder is None else self.transcoder.d_out
        for name, what, ours, theirs, folder in (
            ("d_in", "activations", own, d_in, getattr(data, "path", "the data")),
            ("d_out", "targets", own_out, d_out, getattr(data, "targets", "the data")),
        ):
            if None not in (ours, theirs) and ours != theirs:
                raise LightsaeError(
                    f"the model has {name} = {ours}, the {what} in {folder} have {name} = {theirs}"
                )

    def require_anchor(self) -> None:
        """Read the vocabulary of an anchor, and refuse one of another width than decoder rows."""
        if self.anchor is not None:
            self.anchor.require_width(self.sae.d_out)

    def _initialize(self, data: Any) -> None:
        """Scale and decoder bias from a sample of the training data."""
        transcodes = isinstance(self.sae, Transcoder)
        if hasattr(data, "training_targets" if transcodes else "training_sample"):
            targets = data.training_targets(self.init_rows) if transcodes else None
            self._centre_on(data.training_sample(self.init_rows), targets)
        elif self.normalization != "none":
            d_out = self.sae.d_out if transcodes else None
            found = sample_of_loader(self.trainer, self.init_rows, self.sae.d_in, d_out)
            self._centre_on(*found)

    def _centre_on(self, sample: Tensor, targets: Tensor | None) -> None:
        if isinstance(self.sae, Transcoder):
            self.sae.initialize_(sample, self.centre, targets)
        else:
            self.sae.initialize_(sample, self.centre)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take over weights, and the width where there is none; either may be compiled."""
        if not hasattr(self, "sae") and "sae.W_enc" in state_dict:
            self._build(*(state_dict[f"sae.{name}"].shape[1] for name in ("W_enc", "W_dec")))
        return super().load_state_dict(named_as(self.state_dict(), state_dict), strict, assign)

    def _build(self, d_in: int, d_out: int | None = None) -> None:
        arguments = d_in, self.d_sae, self.__dict__["_given_selection"], self.normalization
        if self.transcoder is None:
            self.sae = SparseAutoencoder(*arguments)
        else:
            d_out = self.transcoder.d_out if d_out is None else d_out
            if d_out is None:
                raise LightsaeError(
                    "the data have no targets, which tell the d_out of model.transcoder: give "
                    "data.targets or batches with targets [rows, d_out]; to predict codes alone, "
                    "model.transcoder.d_out"
                )
            self.sae = Transcoder(*arguments, d_out, self.transcoder.skip)
            self.transcoder = replace(self.transcoder, d_out=d_out)
        self.dead_latents = DeadLatentTracker(self.d_sae)
        self.train_r2 = R2(self.sae.d_out, dist_sync_on_step=True)
        self.val_metrics = EvaluationMetrics(self.sae.d_out, self.d_sae)
        self.test_metrics = EvaluationMetrics(self.sae.d_out, self.d_sae)
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

    def taken(self, batch: Any, with_targets: bool = True) -> ActivationBatch:
        """What any loader delivers, in the parameters' dtype unless autocast takes it as it is.

        Args:
            batch: The batch; of a transcoder with targets.
            with_targets: False where the activations alone are wanted.
        """
        transcodes = with_targets and isinstance(self.sae, Transcoder)
        taken = as_activation_batch(batch, self.sae.d_in, self.sae.d_out if transcodes else None)
        return taken._replace(
            activations=self._cast(taken.activations),
            targets=None if taken.targets is None else self._cast(taken.targets),
        )

    def _cast(self, rows: Tensor) -> Tensor:
        dtype, autocast = self.sae.W_enc.dtype, torch.is_autocast_enabled(rows.device.type)
        return rows if autocast and rows.dtype != torch.float64 else rows.to(dtype)

    def reconstructed_of(self, batch: ActivationBatch) -> Tensor:
        """What the autoencoder reconstructs of a batch: its activations, or its targets."""
        if not isinstance(self.sae, Transcoder):
            return batch.activations
        assert batch.targets is not None
        return batch.targets

    def normalized_targets(self, targets: Tensor | None) -> Tensor | None:
        """Targets as the loss of a transcoder compares them; None of another autoencoder."""
        if targets is None or not isinstance(self.sae, Transcoder):
            return None
        return self.sae.normalize_targets(targets)
