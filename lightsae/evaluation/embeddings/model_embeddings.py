"""Embeddings by a model that is run over the images which the autoencoder's shards came from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightsae.activations.extraction.extraction_job import Extraction
from lightsae.activations.extraction.image_origin import images_from
from lightsae.activations.extraction.images.image_set import ImageSet, Item, load_images
from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.extraction.models import LayerTap, load_model
from lightsae.activations.extraction.multi_process import run_in_processes
from lightsae.activations.loading.online.online_datamodule import OnlineActivationDataModule
from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.activations.shards.checked_read import checksum
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import Manifest
from lightsae.errors import LightsaeError
from lightsae.evaluation.options import EmbeddingOptions
from lightsae.evaluation.split_images import SplitImages

_BATCH = 64
_HAVE_EMBEDDINGS = ("timm", "open_clip", "transformers")


def extract_embeddings(
    options: EmbeddingOptions,
    images: SplitImages,
    data: SplitDataModule | None,
    cache: Path,
    data_options: DataOptions | None,
) -> Path:
    """Run a model over the images of a split, unless it was.

    Args:
        options: The model, and where in it.
        images: The images of the split.
        data: The autoencoder's rows.
        cache: Folder of such shards.
        data_options: The images, where `data` does not say them.

    Returns:
        The folder of shards.

    Raises:
        LightsaeError: If the images are unknown, or not those of the rows, or the model or layer
            is not what it should be.
    """
    assert options.model is not None
    known = options.model.name is not None and options.model.library in _HAVE_EMBEDDINGS
    if options.layer is None and not known:
        raise LightsaeError(
            f"evaluation.embeddings: {options.title} has no embedding that is known: give the "
            "layer whose output to take"
        )
    wanted = checksum(images.distinct.tobytes())
    out = cache / f"{options.title}-{wanted:016x}"
    source = _images_of(data, data_options, options.title)
    module: nn.Module = load_model(options.model)
    found, preparation = load_images(source, module)
    if data is not None:
        _require_same(found, data.manifest, given=data_options is not None)
    layer, tokens = options.layer, options.tokens
    if layer is None:
        module, layer = _Embedder(module, options), "embedding"
    some = _SomeImages(found, images.distinct)
    extraction = Extraction(
        tap=LayerTap(module, layer), images=some, out=out, model_name=options.model.title,
        tokens=tokens, dtype="float32", batch_size=_BATCH, preparation=preparation,
        prefix_tokens=options.model.prefix_tokens, arguments=options.model.arguments,
    )  # fmt: skip
    run_in_processes(extraction)
    return out


def _images_of(data: SplitDataModule | None, given: DataOptions | None, name: str) -> DataOptions:
    """The images of the rows, to be prepared as the other model wants them."""
    found = given
    if found is None and isinstance(data, OnlineActivationDataModule):
        found = data.data_options
    if found is None and data is not None:
        found = images_from(data.manifest, "--evaluation.images.dataset")
    if found is None:
        raise LightsaeError(
            f"evaluation.embeddings: {name} is a model, and the shards do not say which images "
            "they are of: give --evaluation.images.folder, or another source of images"
        )
    own: dict[str, Any] = {"size": None, "mean": None, "std": None, "crop": None}
    return replace(found, **own, interpolation=None)


def _require_same(found: ImageSet, manifest: Manifest, given: bool) -> None:
    """Refuse images that are not those of the rows: their numbers would mean others."""
    there, here = manifest.settings.get("data"), found.fingerprint
    if there is not None and there != here:
        key = "evaluation.images" if given else "the images"
        raise LightsaeError(
            f"{key}: {found.name} holds other images than the shards were extracted from "
            f"(fingerprint {here}, expected {there})"
        )


class _SomeImages:
    """The images of some samples.

    Args:
        images: More of them.
        samples: Int64, the samples, ascending.
    """

    def __init__(self, images: ImageSet, samples: Array) -> None:
        self._images = images
        self._positions = np.flatnonzero(np.isin(images.original_index, samples))
        self.original_index: Array = images.original_index[self._positions]
        self.classes, self.has_labels = images.classes, images.has_labels
        self.name = images.name
        chosen = f"{checksum(samples.tobytes()):016x}"
        self.fingerprint = f"{images.fingerprint} of samples {chosen}"

    def __len__(self) -> int:
        """Number of images."""
        return len(self._positions)

    def name_of(self, position: int) -> str:
        """What messages call an image."""
        name_of = getattr(self._images, "name_of", None)
        place = int(self._positions[position])
        return str(name_of(place)) if name_of else f"item {place} of {self.name}"

    def load(self, position: int) -> Item:
        """Read and prepare an image."""
        return self._images.load(int(self._positions[position]))


class _Embedder(nn.Module):
    """A model whose layer `embedding` gives one vector for each image.

    What timm pools before its classifier, what open_clip projects, what transformers calls the
    pooled output.
    """

    def __init__(self, model: nn.Module, options: EmbeddingOptions) -> None:
        super().__init__()
        self.model, self.embedding = model, nn.Identity()
        self._title = options.title
        if hasattr(model, "reset_classifier"):
            without_classifier: Any = model
            without_classifier.reset_classifier(0)

    def forward(self, *args: Tensor, **inputs: Tensor) -> Tensor:
        """The embedding of a batch, [B, d_e]."""
        output: Any = self.model(*args, **inputs)
        output = getattr(output, "pooler_output", None) if hasattr(output, "keys") else output
        output = output[0] if isinstance(output, tuple) else output
        if not isinstance(output, torch.Tensor) or output.ndim != 2:
            raise LightsaeError(
                f"evaluation.embeddings: {self._title} gives no vector for an image: give the "
                "layer whose output to take"
            )
        embedding: Tensor = self.embedding(output)
        return embedding
