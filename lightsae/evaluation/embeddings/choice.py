"""The embeddings that were asked for, opened: shards, models, tensors or the own input."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.errors import LightsaeError
from lightsae.evaluation.embeddings.image_embeddings import ImageEmbeddings, require_directions
from lightsae.evaluation.embeddings.model_embeddings import extract_embeddings
from lightsae.evaluation.embeddings.shard_embeddings import read_embeddings
from lightsae.evaluation.options import (
    OWN_INPUT,
    EmbeddingOptions,
    embedding_options,
    require_own_names,
)
from lightsae.evaluation.split_images import SplitImages

Given = EmbeddingOptions | str | Path | Tensor
Embeddings = Sequence[EmbeddingOptions | str | Path] | Mapping[str, Given]


def open_embeddings(
    given: Embeddings,
    images: SplitImages | None,
    data: SplitDataModule | None,
    cache: Path,
    data_options: DataOptions | None = None,
) -> list[ImageEmbeddings]:
    """Read, or compute, the embeddings of every image of a split.

    Args:
        given: What was asked for; with names of one's own as a mapping. A tensor [n, d_e] has the
            embedding of sample i in row i.
        images: The images; None where they are unknown.
        data: The rows of the autoencoder, whose images a model is run over.
        cache: Folder that keeps what a model gave.
        data_options: The images of `data`, where it does not say them.

    Returns:
        The embeddings in the order asked for.

    Raises:
        LightsaeError: If two have one name, one lacks samples of the split, or is not what it
            should be.
    """
    named = _named(given)
    require_own_names([name for name, _ in named])
    found = []
    for name, each in named:
        if each is None:
            found.append(ImageEmbeddings(name, "the autoencoder's own input", None))
        elif images is None:
            raise LightsaeError(
                f"evaluation.embeddings: {name} needs the sample of each row, which this loader "
                f"does not tell; {OWN_INPUT} does not"
            )
        elif isinstance(each, Tensor):
            found.append(_of_tensor(name, each, images))
        elif each.model is None:
            _require_no_model(str(each.shards))
            found.append(read_embeddings(str(each.shards), name, images))
        else:
            shards = extract_embeddings(each, images, data, cache, data_options)
            found.append(read_embeddings(shards, name, images))
    return found


def _named(given: Embeddings) -> list[tuple[str, EmbeddingOptions | Tensor | None]]:
    """Names and what they stand for, None for the own input."""
    if isinstance(given, Mapping):
        return [
            (name, each if isinstance(each, Tensor) else embedding_options(each))
            for name, each in given.items()
        ]
    if isinstance(given, str | Path):
        given = [given]
    options = [embedding_options(each) for each in given]
    return [(OWN_INPUT if each is None else each.title, each) for each in options]


def _require_no_model(folder: str) -> None:
    """Refuse a folder that is not there and has the name of a model, which needs its library."""
    if Path(folder).exists() or find_spec("timm") is None:
        return
    if import_module("timm").is_model(folder):
        raise LightsaeError(
            f"evaluation.embeddings: there is no folder {folder}; timm:{folder} is the model"
        )


def _of_tensor(name: str, table: Tensor, images: SplitImages) -> ImageEmbeddings:
    """Embeddings whose row i is that of sample i."""
    if table.ndim != 2 or not table.is_floating_point():
        raise LightsaeError(
            f"embeddings {name!r} is {table.dtype} {list(table.shape)}, expected floats [n, d_e]"
        )
    missing = images.distinct[images.distinct >= len(table)]
    if len(missing):
        raise LightsaeError(
            f"embeddings {name!r} has {len(table)} rows, none for {len(missing)} of the "
            f"{len(images.distinct)} samples of the split, the first is sample {missing[0]}"
        )
    place = torch.from_numpy(images.samples)
    table = table.detach().cpu()
    require_directions(table[images.distinct], torch.from_numpy(images.distinct), f"{name!r}")
    return ImageEmbeddings(name, f"a tensor {list(table.shape)}", table, place)
