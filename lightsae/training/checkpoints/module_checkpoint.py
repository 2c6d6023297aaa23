"""A module that writes into a checkpoint what builds it again, and checks what it reads."""

from dataclasses import asdict
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Self

from lightning.pytorch import LightningModule
from lightsae_kernels import raise_if_flagged

from lightsae.errors import LightsaeError
from lightsae.module_names import named_as, plain_name
from lightsae.sae import (
    AuxK,
    Normalization,
    Reconstruction,
    Regularizer,
    Selection,
    SparseAutoencoder,
    TranscoderOptions,
    VocabularyAnchor,
)
from lightsae.sae.losses.vocabulary_anchor import Anchored
from lightsae.training.checkpoints.compatibility import (
    require_resumable,
    require_same_model,
    require_same_vocabulary,
)
from lightsae.training.checkpoints.provenance import require_same_shards, require_same_source
from lightsae.training.checkpoints.reading import read_checkpoint
from lightsae.training.checkpoints.saved_settings import (
    anchored_of,
    described_anchor,
    described_losses,
    described_selection,
    module_settings,
    plain,
    plain_anchored,
)
from lightsae.training.starting_point import Start, require_same_start, start_of_checkpoint


class CheckpointedModule(LightningModule):
    """Saving and loading of `SAEModule`.

    Attributes:
        selection: Which latents stay on.
        regularizer: Penalty on the activations before selection, or None.
        aux_k: Auxiliary loss that revives dead latents, or None.
        reconstruction: Loss of nested parts of the code, or None.
        transcoder: What makes the autoencoder a transcoder, its width included once that is known;
            or None.
        anchor: Holds latents near a vocabulary, or None.
        last_anchored: What the anchor was when it was last computed, or None.
        normalization: What is done to inputs before they are encoded.
        start: What the run started as, or None.
        sae: The autoencoder.
    """

    regularizer: Regularizer | None
    aux_k: AuxK | None
    reconstruction: Reconstruction | None
    transcoder: TranscoderOptions | None
    anchor: VocabularyAnchor | None
    last_anchored: Anchored | None
    normalization: Normalization
    start: Start | None = None
    sae: SparseAutoencoder
    _shards: dict[str, str]

    @property
    def selection(self) -> Selection:
        """Which latents stay on."""
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what builds the module again, and what tells the shards from others."""
        raise_if_flagged()
        state = checkpoint["state_dict"].items()
        checkpoint["state_dict"] = {plain_name(name): tensor for name, tensor in state}
        name = self.CHECKPOINT_HYPER_PARAMS_KEY
        checkpoint[name] = plain(checkpoint.get(name, {}))
        checkpoint["selection"] = described_selection(self.selection)
        checkpoint |= described_losses(self.regularizer, self.aux_k, self.reconstruction)
        checkpoint["normalization"] = self.normalization
        checkpoint["transcoder"] = None if self.transcoder is None else asdict(self.transcoder)
        checkpoint["anchor"] = described_anchor(self.anchor)
        checkpoint["last_anchored"] = plain_anchored(self.last_anchored)
        checkpoint["shards"] = self._shards
        checkpoint["start"] = self.start

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model or other shards, or one without a position."""
        path = (self._trainer and self.trainer.ckpt_path) or "the checkpoint"
        try:
            self._require_same_model(checkpoint)
            start = start_of_checkpoint(checkpoint)
            if self._trainer is not None and self.trainer.training:
                require_same_start(start, self.start)
                require_resumable(checkpoint, self.trainer.fit_loop.state_dict())
                require_same_vocabulary(checkpoint.get("anchor"), described_anchor(self.anchor))
        except LightsaeError as error:
            raise LightsaeError(f"{path} {error}") from error
        if self.anchor is not None:
            self.last_anchored = anchored_of(checkpoint.get("last_anchored"))
        self.keep_start(start)
        if self._trainer is not None:
            self._require_its_shards(checkpoint.get("shards", {}), str(path))

    def keep_start(self, start: Start | None) -> None:
        """Remember what the run started as, and where that was from."""
        self.start = start
        if start is not None:
            self.sae.provenance = start["provenance"]

    def _require_its_shards(self, trained_on: dict[str, str], path: str) -> None:
        """To go on they must be the same; to evaluate, those of the same model and layer."""
        require = require_same_shards if self.trainer.training else require_same_source
        try:
            require(trained_on, self._shards)
        except LightsaeError as error:
            folder = getattr(getattr(self.trainer, "datamodule", None), "path", "the data")
            raise LightsaeError(f"{folder}: {path} was trained on {error}") from error

    def _require_same_model(self, checkpoint: dict[str, Any]) -> None:
        # Either may be compiled.
        checkpoint["state_dict"] = named_as(self.state_dict(), checkpoint["state_dict"])
        rule = described_selection(self.selection)
        require_same_model(checkpoint, self.state_dict(), rule, self.normalization)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        weights_only: bool | None = None,
        **settings: Any,
    ) -> Self:
        """Build the module of a checkpoint, with its weights.

        Args:
            checkpoint_path: A checkpoint of `fit`, of a `ModelCheckpoint` or of `Trainer`.
            map_location: Where its tensors go.
            weights_only: Of no effect: nothing that a checkpoint holds is ever run.
            settings: Arguments of the module that stand above those that were saved. Optimizer and
                schedule are not saved: give them to train on.

        Raises:
            LightsaeError: If it is no checkpoint of a `SAEModule`, does not say what builds the
                module, or was trained with a class that is not of this package and is not given.

        Example:
            >>> from lightsae.training import SAEModule
            >>> SAEModule.load_from_checkpoint("no.ckpt")
            Traceback (most recent call last):
            ...
            lightsae.errors.LightsaeError: no.ckpt: no such checkpoint
        """
        path = Path(checkpoint_path)
        content = read_checkpoint(path, map_location)
        known = module_settings(content, path, settings, _arguments(cls))
        try:
            module = cls(**known)
        except (TypeError, ValueError) as error:
            raise LightsaeError(f"{path}: {error}") from error
        try:
            module._require_same_model(content)
        except LightsaeError as error:
            raise LightsaeError(f"{path} {error}") from error
        module.on_load_checkpoint(content)
        weights = content["state_dict"]["sae.W_enc"]
        module.to(weights.device, weights.dtype).load_state_dict(content["state_dict"])
        return module


def _arguments(kind: type) -> set[str]:
    """Names of the arguments of a class, and of those above it that it passes on."""
    found: dict[str, Parameter] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            found |= signature(base.__init__).parameters  # type: ignore[misc]
            if not any(each.kind is Parameter.VAR_KEYWORD for each in found.values()):
                break
            found = {n: each for n, each in found.items() if each.kind is not Parameter.VAR_KEYWORD}
    return set(found)
