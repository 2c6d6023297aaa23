"""Batches of prepared images in a given order, read in a thread or in worker processes."""

import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from lightsae.activations.extraction.images.image_set import ImageSet, Item
from lightsae.activations.extraction.images.shared_memory_transfer import packed
from lightsae.activations.extraction.models import Inputs
from lightsae.activations.shards.dtypes import Array
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError


class ImageBatch(NamedTuple):
    """What was read of some images.

    Attributes:
        positions: Which of them are readable.
        images: Those, `[B, C, H, W]`, or keyword arguments of the model; None if there are none.
        labels: Their classes, int64 `[B]`, or None if the images have no labels.
        problems: What is wrong with the others.
        warnings: What was said of images that could be read all the same.
    """

    positions: list[int]
    images: Inputs | None
    labels: Tensor | None
    problems: list[str]
    warnings: Sequence[str] = ()


def image_batches(
    images: ImageSet, order: Array, batch_size: int, workers: int
) -> Generator[ImageBatch, None, None]:
    """Read images batch by batch; workers start at once.

    Args:
        images: The images.
        order: Int64 `[n]`, positions of the images in the order wanted.
        batch_size: Images per batch.
        workers: Processes that read; 0 reads in a thread of this one.

    Returns:
        An iterator over the batches, the same for any number of workers.

    Raises:
        LightsaeError: While iterating, if an item is not what it should be.
    """
    starts = range(0, len(order), batch_size)
    return listed_batches(images, [order[start : start + batch_size] for start in starts], workers)


def listed_batches(
    images: ImageSet, batches: Sequence[Array], workers: int
) -> Generator[ImageBatch, None, None]:
    """Read images in batches of any sizes, as `image_batches` does.

    Args:
        images: The images.
        batches: Positions of the images of each batch, int64.
        workers: Processes that read; 0 reads in a thread of this one.
    """
    loader: DataLoader[ImageBatch | LightsaeError] = DataLoader(
        _Batches(images, batches),
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_end_quietly,
        # The global one is for the weights of what is trained.
        generator=torch.Generator(),
    )
    try:
        if workers:
            multiprocessing.Lock()  # a loader that fails at its first would print a traceback
        found = _unpacked(iter(loader))
    except OSError as error:
        raise LightsaeError(
            f"workers is {workers}: the processes that read images cannot start: {reason(error)}; "
            "workers 0 needs none"
        ) from error
    return found if workers else _read_ahead(found)


def _read_ahead(
    batches: Generator[ImageBatch, None, None],
) -> Generator[ImageBatch, None, None]:
    """Let a thread read the next batch while the caller runs the model on this one."""
    with closing(batches), ThreadPoolExecutor(1, "read") as thread:
        following = thread.submit(next, batches, None)
        while (found := following.result()) is not None:
            following = thread.submit(next, batches, None)
            yield found


def _unpacked(
    loader: Iterator[ImageBatch | LightsaeError],
) -> Generator[ImageBatch, None, None]:
    """The batches of a loader; an error that a worker met is raised here."""
    try:
        for found in loader:
            if isinstance(found, LightsaeError):
                raise found
            yield found
    except (RuntimeError, OSError) as error:
        raise LightsaeError(f"data: a process that reads images died: {reason(error)}") from error
    finally:
        _end_workers(loader)


def _end_workers(loader: Any) -> None:
    """End the workers here: the loader's destructor runs anywhere and would print a traceback."""
    if not isinstance(loader, _MultiProcessingDataLoaderIter):
        return
    for _ in range(2):
        # The death of another worker is told by a signal, wherever the program is by then.
        with suppress(RuntimeError):
            loader._shutdown_workers()


class _Batches(Dataset[ImageBatch | LightsaeError]):
    """Whole batches by number.

    Errors are returned: raised, they would leave a worker with a traceback for a message.
    """

    def __init__(self, images: ImageSet, batches: Sequence[Array]) -> None:
        self._images, self._batches = images, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> ImageBatch | LightsaeError:
        positions = self._batches[number].tolist()
        try:
            batch = collate([(position, self._images.load(position)) for position in positions])
        except LightsaeError as error:
            return error
        if get_worker_info() is None:
            return batch
        try:
            return _packed(batch)
        except OSError as error:
            return LightsaeError(f"workers: no memory for a batch of images: {reason(error)}")


def _packed(batch: ImageBatch) -> ImageBatch:
    """A batch as it leaves a worker."""
    images = None if batch.images is None else packed(batch.images)
    labels = None if batch.labels is None else packed(batch.labels)
    return batch._replace(images=images, labels=labels)


def _end_quietly(worker: int) -> None:
    """Where a signal goes to all processes, it is the parent that tells of it."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def _unchanged(found: Any) -> Any:
    """Batches are made where images are read."""
    return found


def collate(items: list[tuple[int, Item]]) -> ImageBatch:
    """Put items into a batch.

    Args:
        items: Positions and what was loaded there.

    Returns:
        The readable ones, and what is wrong with the others.

    Raises:
        LightsaeError: If images differ in shape or dtype.
    """
    problems = [item.problem for _, item in items if item.problem]
    positions = [position for position, item in items if item.image is not None]
    images = [item.image for _, item in items if item.image is not None]
    if not images:
        return ImageBatch([], None, None, problems)
    kinds = {_kind(image) for image in images}
    if len(kinds) > 1:
        raise LightsaeError(f"data: images differ, expected one shape and dtype: {sorted(kinds)}")
    labels = [item.label for _, item in items if item.label is not None]
    warnings = [item.warning for _, item in items if item.warning]
    return ImageBatch(
        positions, _stacked(images), torch.tensor(labels) if labels else None, problems, warnings
    )


def _kind(image: Inputs) -> str:
    """Shape and dtype, of each argument if there are several."""
    if isinstance(image, Tensor):
        return f"{list(image.shape)} {image.dtype}"
    return ", ".join(f"{name} {_kind(tensor)}" for name, tensor in image.items())


def _stacked(images: list[Inputs]) -> Inputs:
    """A batch of images of one kind."""
    if isinstance(images[0], Tensor):
        return torch.stack([image for image in images if isinstance(image, Tensor)])
    rows = [image for image in images if not isinstance(image, Tensor)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
