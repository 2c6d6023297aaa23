"""The autoencoder of a module: made once its width is known, centred on the data if it is fresh."""

from collections.abc import Mapping
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
from lightsae.sae import Centre, Normalization, Selection, SparseAutoencoder, SparseCode
from lightsae.training.checkpoints.module_checkpoint import CheckpointedModule
from lightsae.training.checkpoints.provenance import shards_of
from lightsae.training.dead_latents import DeadLatentTracker
from lightsae.training.evaluation_metrics import EvaluationMetrics
from lightsae.training.loader_sample import sample_of_loader, width_of_loader
from lightsae.training.untrained_check import is_untrained


class BuiltModule(CheckpointedModule):
    """Building of `SAEModule`, and the batches it takes.

    Attributes:
        d_sae: Size of the dictionary.
        centre: What the decoder bias starts as.
        init_rows: Rows of the training split that set the input scale and the decoder bias.
        sae: The autoencoder, once the width is known.
        dead_latents: Tokens since each latent fired.
    """

    d_sae: int
    normalization: Normalization
    centre: Centre
    init_rows: int
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

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take over weights, and the width where there is none; either may be compiled."""
        if not hasattr(self, "sae") and "sae.W_enc" in state_dict:
            self._build(state_dict["sae.W_enc"].shape[1])
        return super().load_state_dict(named_as(self.state_dict(), state_dict), strict, assign)

    def _build(self, d_in: int) -> None:
        given = self.__dict__["_given_selection"]
        self.sae = SparseAutoencoder(d_in, self.d_sae, given, self.normalization)
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
