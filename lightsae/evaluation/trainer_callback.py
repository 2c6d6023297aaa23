"""The evaluation as a callback of a trainer's test: one pass, in which the module logs as well."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from lightsae.activations.loading.activation_batch import as_activation_batch
from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.errors import LightsaeError
from lightsae.evaluation.description import described, described_regularizer, described_run
from lightsae.evaluation.embeddings import ImageEmbeddings, open_embeddings
from lightsae.evaluation.one_pass.one_pass import OnePass
from lightsae.evaluation.options import EvaluationOptions
from lightsae.evaluation.probes import add_probes, why_no_probes
from lightsae.evaluation.result import EvaluationResult
from lightsae.evaluation.split_images import SplitImages
from lightsae.extras import MissingExtraError
from lightsae.training.module import SAEModule

_LOGGED = {"test/loss": "loss", "test/reconstruction": "reconstruction", "test/penalty": "penalty"}


class EvaluationCallback(Callback):
    """Takes what `test_step` of a `SAEModule` made of each batch, and writes the result.

    Args:
        folder: Where evaluation.json and evaluation.safetensors go, and what models gave.
        options: How the autoencoder is evaluated.

    Attributes:
        result: After the test, on the first rank.
        seed: Seed of the run, for the result.
        step: Step of the checkpoint, for the result.
        notes: Why there is no result.
    """

    def __init__(self, folder: Path, options: EvaluationOptions) -> None:
        self.folder, self.options = folder, options
        self.result: EvaluationResult | None = None
        self.seed: int | None = None
        self.step: int | None = None
        self.notes: list[str] = []
        self._pass: OnePass | None = None
        self._images: SplitImages | None = None
        self._embeddings: list[ImageEmbeddings] = []

    def prepare(self, data: Any) -> None:
        """Run the models among the embeddings, before other processes are started.

        Args:
            data: The data module, or None.

        Raises:
            LightsaeError: As in `open_embeddings`.
        """
        chosen = self.options.chosen()
        if not any(each is not None and each.model is not None for each in chosen):
            return
        if not isinstance(data, SplitDataModule):
            raise LightsaeError("evaluation.embeddings: a model needs images, which are unknown")
        data.prepare_data()
        data.setup("test")
        self._open(data)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the embeddings."""
        self._pass, self.result = None, None
        if not isinstance(pl_module, SAEModule):
            self.notes = [f"{type(pl_module).__name__} is no SAEModule: only its own metrics"]
            return
        data = _data_of(trainer)
        if self._images is None:
            self._open(data)
        self._pass = OnePass(pl_module.sae, self._images, self._embeddings, self.options)

    def _open(self, data: SplitDataModule | None) -> None:
        self._images = None if data is None else SplitImages.of(data, "test")
        options, cache = self.options, self.folder / "embeddings"
        self._embeddings = open_embeddings(
            options.embeddings, self._images, data, cache, options.images
        )

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch."""
        if self._pass is not None:
            taken = as_activation_batch(batch)._replace(
                activations=outputs["x"], targets=outputs["targets"]
            )
            self._pass.update(taken, outputs["code"], outputs["x_hat"])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the ranks together."""
        if self._pass is None:
            return
        assert isinstance(pl_module, SAEModule)
        found = self._pass.compute()
        pooling = self.options.pooling if self._pass.pools else None
        about = described(
            pl_module.sae, _data_of(trainer), "test", found, self._embeddings, pooling
        )
        regularizer = described_regularizer(pl_module.regularizer)
        about |= described_run(self.folder, trainer.ckpt_path, self.step, regularizer, self.seed)
        about["left_out"] = list(self._pass.notes)
        self.result = EvaluationResult(about, found.scalars, found.curves, found.latents)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the result, first without and then with probes, on the first rank."""
        if self.result is None or not trainer.is_global_zero:
            return
        for logged, name in _LOGGED.items():
            if logged in trainer.callback_metrics:
                self.result.scalars[name] = float(trainer.callback_metrics[logged])
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.result.save(self.folder)

    def fit_probes(self, module: SAEModule, data: Any, console: Console) -> None:
        """Fit the probes, if they are wanted and can be, and write the result again.

        Once the other processes need not be waited for: only the first fits.

        Args:
            module: The module that was tested.
            data: The data module.
            console: Where progress is shown.
        """
        if self.result is None or not self.options.probes:
            return
        known = data if isinstance(data, SplitDataModule) else None
        missing = why_no_probes(known, self._images)
        if missing is None and known is not None:
            try:
                add_probes(self.result, module.sae, known, "test", self.options, console)
            except MissingExtraError as error:
                missing = str(error)
        left_out: list[str] = self.result.about["left_out"]
        if missing is not None and not any("no probes" in note for note in left_out):
            left_out.append(f"{missing}: no probes")
        self.result.save(self.folder)


def _data_of(trainer: Trainer) -> SplitDataModule | None:
    """The data module, if it is one that knows its images."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, SplitDataModule) else None
