"""`GalleryCallback`: a small gallery of latents every so many steps of training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.activations.loading.splits import Split
from lightsae.dictionaries import Vocabulary, name_latents
from lightsae.errors import LightsaeError
from lightsae.files import NameOption, expanded
from lightsae.metrics import TopActivating
from lightsae.report.figures.gallery import top_images_gallery
from lightsae.report.images.sample_images import SampleImages, images_at, images_of_shards
from lightsae.report.latents.image_keys import has_copies, image_keys
from lightsae.runs.naming.names_table import shown_word
from lightsae.training import SAEModule

_THUMBNAIL = 112
# Characters of a name that stand beside its images.
_LONGEST = 18


class _ByKey:
    """Images by the numbers that the metric was given."""

    def __init__(self, images: SampleImages) -> None:
        self._images = images

    def __getitem__(self, key: int, /) -> Any:
        """One image, grey where it cannot be read."""
        found = self._images.pixels(key)
        return np.full((16, 16), 127, np.uint8) if found is None else found


class GalleryCallback(Callback):
    """Draws gallery/step-00001000.png in the run folder: latents and the images that they fire on.

    The same latents are shown each time, drawn at random, so that one can watch them become what
    they are; rows are those of the validation split, or of the training split where there is none.
    The random numbers of training are left alone.

    Args:
        every: Optimizer steps between two galleries; one more is drawn at the end.
        latents: How many latents.
        images: Images of each.
        rows: Rows that are looked at, at most.
        path: Where images come from, as for `lightsae report --images`; by default from where the
            shards say.
        seed: Seed of the choice of latents.
        vocabulary: File of `lightsae vocabulary`: latents carry the word that their decoder row is
            parallel to at the time, from a cosine of .8 on.

    Raises:
        LightsaeError: If a number is less than 1; when training starts, if there are no images, or
            no vocabulary of the width of the decoder.

    Example:
        >>> GalleryCallback(every=100).every
        100
        >>> GalleryCallback(every=0)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: GalleryCallback: every is 0, expected at least 1
    """

    def __init__(
        self,
        every: int = 1000,
        latents: int = 12,
        images: int = 10,
        rows: int = 20_000,
        path: NameOption | None = None,
        seed: int = 0,
        vocabulary: NameOption | None = None,
    ) -> None:
        given = {"every": every, "latents": latents, "images": images, "rows": rows}
        for name, value in given.items():
            if value < 1:
                raise LightsaeError(f"GalleryCallback: {name} is {value}, expected at least 1")
        self.every, self.latents, self.images, self.rows = every, latents, images, rows
        self.path = None if path is None else expanded(path)
        self.seed = seed
        self.vocabulary = None if vocabulary is None else expanded(vocabulary)
        self._words: Vocabulary | None = None
        self._pictures: _ByKey | None = None
        self._drawn = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the images, before work is lost."""
        if not isinstance(pl_module, SAEModule):
            raise LightsaeError(
                f"GalleryCallback: the module is a {type(pl_module).__name__}, expected a SAEModule"
            )
        if trainer.is_global_zero:
            self._words = self._read_vocabulary(pl_module)
            manifest = _data_of(trainer).manifest
            try:
                found = (
                    images_of_shards(manifest, _THUMBNAIL)
                    if self.path is None
                    else images_at(self.path, manifest, _THUMBNAIL)
                )
            except LightsaeError as error:
                raise LightsaeError(
                    f"GalleryCallback: {error}; its path says where images are"
                ) from error
            self._pictures = _ByKey(found)

    def _read_vocabulary(self, module: SAEModule) -> Vocabulary | None:
        """The words that latents are called by."""
        if self.vocabulary is None:
            return None
        found = Vocabulary.load(self.vocabulary)
        width = module.sae.W_dec.shape[1]
        if found.vectors.shape[1] != width:
            raise LightsaeError(
                f"GalleryCallback: {self.vocabulary} has directions of width "
                f"{found.vectors.shape[1]}, decoder rows have {width}"
            )
        return found

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw after every so many optimizer steps."""
        if trainer.global_step % self.every == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what training came to."""
        self._draw(trainer, pl_module)

    @torch.no_grad()
    def _draw(self, trainer: Trainer, module: LightningModule) -> None:
        """The gallery of this step, once."""
        step = trainer.global_step
        if self._pictures is None or step == self._drawn or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert isinstance(module, SAEModule)
        self._drawn = step
        data = _data_of(trainer)
        split: Split = "validation" if data.val_fraction else "train"
        # The other ranks are not here to be asked.
        top = TopActivating(module.sae.d_sae, self.images, sync_on_compute=False)
        copies, seen = has_copies(data.manifest), 0
        for batch in data.split_dataloader(split):
            code = module.sae.encode(batch.activations.to(module.device, module.sae.W_enc.dtype))
            tokens = batch.token_index.cpu().numpy() if copies else None
            keys = image_keys(batch.sample_index.cpu().numpy(), tokens)
            top.update(code.values.cpu(), code.indices.cpu(), torch.from_numpy(keys))
            seen += len(keys)
            if seen >= self.rows:
                break
        strongest = top.compute()
        shown = self._shown(strongest.samples)
        folder = Path(trainer.default_root_dir) / "gallery"
        top_images_gallery(
            self._pictures,
            strongest.samples[shown],
            strongest.values[shown],
            self._titles(module, shown),
            folder / f"step-{step:08d}.png",
            heading=f"Latents after {step} steps",
            note=f"strongest of {seen} rows of the {split} split; latents drawn at random",
        )

    def _titles(self, module: SAEModule, shown: Tensor) -> list[str]:
        """Number of each latent, and below it its name."""
        titles = [f"latent {latent}" for latent in shown.tolist()]
        if self._words is None:
            return titles
        rows = module.sae.W_dec.detach()[shown.to(module.device)].float().cpu()
        named = name_latents(rows, self._words)
        return [
            f"{title}\n{_short(name)} {cosine:.2f}" if name else title
            for title, name, cosine in zip(
                titles, named.names, named.similarity.tolist(), strict=True
            )
        ]

    def _shown(self, samples: Tensor) -> Tensor:
        """The latents to show: the first of a random order that fire, ascending."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(samples), generator=generator)
        fires = samples[order, 0] >= 0
        # Those that fire first, the order kept.
        ranked = order[(~fires).to(torch.int8).argsort(stable=True)]
        return ranked[: self.latents].sort().values


def _short(name: str) -> str:
    """A name that fits beside the images."""
    shown = shown_word(name)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}\u2026"


def _data_of(trainer: Trainer) -> SplitDataModule:
    """The trainer's data module, whose images are known."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, SplitDataModule):
        raise LightsaeError(
            "GalleryCallback: the data is no ActivationDataModule or OnlineActivationDataModule, "
            "so its images are unknown"
        )
    return data
