"""Images of ten classes, and which of them are rare: for a network that lacks a task."""

import io
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.files import expanded


class TaskImages(NamedTuple):
    """Shuffled images.

    Attributes:
        images: [n, channels, side, side] float32, about -1 to 1.
        labels: [n] int64.
        on_task: Which are of the classes of the task, bool [n].
        train: Images that networks and autoencoders learn from.
        find: Images that layers are chosen by.
        test: Images that answers are counted on.
    """

    images: Tensor
    labels: Tensor
    on_task: Tensor
    train: slice
    find: slice
    test: slice

    def base_training(self, share: float) -> Tensor:
        """Places of the training images, of the task's classes only a share.

        Args:
            share: Of each class of the task.
        """
        places = torch.arange(len(self.labels))[self.train]
        kept = [places[~self.on_task[places]]]
        for label in self.labels[self.on_task].unique():
            own = places[self.labels[places] == label]
            kept.append(own[: max(1, round(share * len(own)))])
        return torch.cat(kept)


def digits(task: tuple[int, ...] = (3, 5, 8), seed: int = 0) -> TaskImages:
    """The 1,797 digits of scikit-learn, 8 x 8 in grey.

    Args:
        task: Its classes.
        seed: Of the shuffling.

    Example:
        >>> found = digits()
        >>> found.images.shape, int(found.on_task[found.test].sum())
        (torch.Size([1797, 1, 8, 8]), 249)
    """
    bundled = require("sklearn.datasets", extra="evaluation").load_digits()
    images = torch.from_numpy(bundled.images).float().unsqueeze(1) / 8 - 1
    return _split(images, torch.from_numpy(bundled.target).long(), task, seed, 700, 250)


def images_of_tar(path: str, task: tuple[int, ...] = (3, 5, 7), seed: int = 0) -> TaskImages:
    """Images of a tar with a folder for each class, such as CIFAR-10.

    Args:
        path: Of the tar; all its images have one size.
        task: Its classes, by place in the sorted names of folders; by default cat, dog and horse.
        seed: Of the shuffling.

    Raises:
        LightsaeError: If it cannot be read or holds no such images.
    """
    image_module = require("PIL.Image", extra="vision")
    images, names = [], []
    try:
        with tarfile.open(Path(expanded(path))) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    image = image_module.open(io.BytesIO(content.read())).convert("RGB")
                    images.append(np.asarray(image))
                    names.append(PurePosixPath(member.name).parent.name)
    except (OSError, tarfile.TarError) as error:
        raise LightsaeError(f"--data {path} is no tar of images: {error}") from error
    if len({image.shape for image in images}) != 1 or len(set(names)) <= max(task):
        raise LightsaeError(
            f"--data {path}: expected images of one size in {max(task) + 1} folders or more"
        )
    classes = sorted(set(names))
    labels = torch.tensor([classes.index(name) for name in names])
    pixels = torch.from_numpy(np.stack(images)).float().permute(0, 3, 1, 2) / 127.5 - 1
    return _split(pixels, labels, task, seed, 70 * len(pixels) // 100, 15 * len(pixels) // 100)


def _split(
    images: Tensor, labels: Tensor, task: tuple[int, ...], seed: int, train: int, find: int
) -> TaskImages:
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    labels = labels[order]
    return TaskImages(
        images[order].contiguous(), labels, torch.isin(labels, torch.tensor(task)),
        slice(0, train), slice(train, train + find), slice(train + find, None),
    )  # fmt: skip
