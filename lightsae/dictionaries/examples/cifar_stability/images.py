"""Images of a tar, and shards of what networks make of them."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from lightsae.activations import Manifest, ShardWriter
from lightsae.activations.extraction.layer_folder import is_complete
from lightsae.dictionaries.examples.cifar_stability.networks import embeddings, load_network
from lightsae.errors import LightsaeError
from lightsae.extras import require

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images_of_tar(path: Path, most: int, seed: int = 0) -> tuple[Tensor, Tensor, list[str]]:
    """Images of a tar with a folder for each class, shuffled.

    Args:
        path: Of the tar; all its images are 32 x 32.
        most: At most so many, drawn at random.
        seed: Of the draw.

    Returns:
        Images [n, 3, 32, 32] normalised as the networks were trained, labels [n] int64, and the
        names of the classes.

    Raises:
        LightsaeError: If it cannot be read or holds no such images.
    """
    image_module = require("PIL.Image", extra="vision")
    found: list[tuple[bytes, str]] = []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    found.append((content.read(), PurePosixPath(member.name).parent.name))
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:most]
        chosen = [found[place] for place in order.tolist()]
        pixels = [
            np.asarray(image_module.open(io.BytesIO(content)).convert("RGB"))
            for content, _ in chosen
        ]
    except (OSError, tarfile.TarError) as error:
        raise LightsaeError(f"--data {path} is no tar of images: {error}") from error
    if {each.shape for each in pixels} != {(32, 32, 3)}:
        raise LightsaeError(f"--data {path}: expected images of 32 x 32")
    classes = sorted({name for _, name in found})
    labels = torch.tensor([classes.index(name) for _, name in chosen])
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(each)[:, None, None] for each in (_MEAN, _STD))
    return (images - mean) / std, labels, classes


def shards_of_networks(
    data: Path, networks: Mapping[str, Path], folder: Path, most: int
) -> dict[str, Path]:
    """Shards of embeddings, one set for each network; those that are there are taken as they are.

    Args:
        data: Tar of images.
        networks: Weights by name.
        folder: Where the shards lie.
        most: Images at most.

    Raises:
        LightsaeError: As `images_of_tar` and `load_network`.
    """
    found = {name: folder / name for name in networks}
    missing = {name: path for name, path in networks.items() if not is_complete(found[name])}
    if not missing:
        return found
    loaded = {name: load_network(path) for name, path in missing.items()}
    images, labels, classes = images_of_tar(data, most)
    for name, network in loaded.items():
        rows = embeddings(network, images)
        manifest = Manifest(
            d_in=rows.shape[1], dtype="float32", model=name, layer="pool", has_labels=True,
            classes=classes,
        )  # fmt: skip
        with ShardWriter(found[name], manifest) as writer:
            writer.write(rows, sample_index=torch.arange(len(rows)), label=labels)
    return found
