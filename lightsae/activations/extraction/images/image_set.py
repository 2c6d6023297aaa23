"""Images by number: from a folder, any torch dataset, or what is read like one."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from operator import index
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from lightsae.activations.extraction.image_sources import ArrayFile, HuggingFace, Tars
from lightsae.activations.extraction.image_sources.color_modes import converted
from lightsae.activations.extraction.image_sources.decoder_messages import (
    decoder_messages,
    warning_line,
)
from lightsae.activations.extraction.image_sources.file_listing import is_hidden
from lightsae.activations.extraction.image_sources.image_folder import list_images
from lightsae.activations.extraction.image_sources.image_formats import open_image
from lightsae.activations.extraction.images.preparation import DataOptions, Transform, preparation
from lightsae.activations.extraction.models import Inputs, import_object
from lightsae.activations.shards.dtypes import Array
from lightsae.error_messages import one_line, reason
from lightsae.errors import LightsaeError


class Item(NamedTuple):
    """One prepared image, or why there is none.

    Attributes:
        image: Float `[C, H, W]`, or keyword arguments of the model; or None.
        label: Its class, or None.
        problem: What is wrong with it, or an empty string.
        warning: What was said of it though it could be read, or an empty string.
    """

    image: Inputs | None
    label: int | None
    problem: str
    warning: str = ""


class ImageSet(Protocol):
    """Images by number; one may have `notes`, lines that are told before they are read.

    Attributes:
        classes: Names of the labels, or empty.
        has_labels: Whether items have labels.
        name: What messages call it.
        fingerprint: Tells one set from another.
        original_index: Int64 `[n]`, the sample that each image belongs to; several images may
            be copies (augmentations) of one sample, and are then never in different splits.
    """

    classes: list[str]
    has_labels: bool
    name: str
    fingerprint: str
    original_index: Array

    def __len__(self) -> int: ...

    def load(self, position: int) -> Item:
        """Read and prepare an image."""
        ...


class FolderImages:
    """The images below a folder, sorted by path; links to folders are followed.

    Args:
        folder: The folder.
        transform: Makes a tensor `[C, H, W]` of a PIL image.
        mode: PIL mode that images are converted to: RGB or L.
        begun: Fingerprints of extractions that are to go on, see `list_images`.
        labels: Whether subfolders are classes; if not, images may lie anywhere.

    Attributes:
        notes: What was left out, a line each.

    Raises:
        LightsaeError: If the folder is missing or holds no image, or an image lies next to folders
            of them, so that it has no class.
    """

    def __init__(
        self,
        folder: str | Path,
        transform: Any,
        mode: str = "RGB",
        begun: Collection[str] = (),
        labels: bool = True,
    ) -> None:
        self._folder, self._transform, self._mode = Path(folder), transform, mode
        listing = list_images(self._folder, begun, labels=labels)
        self._paths, self.classes, self.fingerprint, self.notes = listing
        self.has_labels = bool(self.classes)
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self.name = str(folder)
        self.original_index: Array = np.arange(len(self._paths))

    def __len__(self) -> int:
        """Number of images, readable or not."""
        return len(self._paths)

    def name_of(self, position: int) -> str:
        """The path of an image."""
        return str(self._folder / self._paths[position])

    def load(self, position: int) -> Item:
        """Read and prepare an image."""
        path = self._folder / self._paths[position]
        with decoder_messages() as messages:
            try:
                with open_image(path) as image:
                    tensor = self._transform(converted(image, self._mode))
            except LightsaeError:
                raise
            except Exception as error:
                return Item(None, None, f"{path} is not a readable image: {_why(error, messages)}")
        label = self._labels.get(self._paths[position].parts[0])
        return Item(tensor, label, "", warning_line(str(path), messages))


class DatasetImages:
    """A torch dataset whose items are an image or (image, label).

    Instead of an image, an item may hold the keyword arguments of a model of sound or text: a dict
    of tensors, such as input_ids and attention_mask, all of one shape over the dataset.

    Args:
        dataset: Has a length and items. Its `classes` names the labels, and its `original_index`
            (int per item) names the sample that an item is a copy of, if it has them.
        transform: Makes a tensor of a PIL image; tensors are taken as they are.
        name: What messages call it.
        mode: PIL mode that images are converted to: RGB or L.
        fingerprint: Tells one dataset from another; its name by default.
        labels: Whether labels of items count.

    Attributes:
        notes: What was left out, a line each.

    Raises:
        LightsaeError: If it has no length or items, or its `classes` or `original_index` cannot be.
    """

    def __init__(
        self,
        dataset: Any,
        transform: Any,
        name: str,
        mode: str = "RGB",
        fingerprint: str | None = None,
        labels: bool = True,
    ) -> None:
        self._dataset, self._transform, self._mode = dataset, transform, mode
        self.name, self.fingerprint = name, fingerprint or name
        self.notes: list[str] = []
        count = self._count()
        self._pairs = self._first_is_pair(count)
        self.has_labels = labels and self._pairs
        classes = (getattr(dataset, "classes", None) or []) if labels else []
        if not isinstance(classes, Iterable):
            raise LightsaeError(f"data: classes of {name} is {classes!r}, expected a list of names")
        self.classes = [str(item) for item in classes]
        if hidden := [item for item in self.classes if is_hidden(item)]:
            self.notes.append(f"{name}: classes that are hidden folders: {', '.join(hidden)}")
        original = getattr(dataset, "original_index", None)
        self.original_index: Array = np.arange(count) if original is None else np.asarray(original)
        if self.original_index.shape != (count,) or self.original_index.dtype.kind not in "iu":
            raise LightsaeError(
                f"data: original_index of {name} is {self.original_index.dtype} "
                f"{list(self.original_index.shape)}, expected integers [{count}], one per item"
            )

    def _count(self) -> int:
        """The dataset's length."""
        try:
            count = len(self._dataset)
        except Exception as error:
            raise LightsaeError(f"data: {self.name} gives no length: {reason(error)}") from error
        if count == 0:
            raise LightsaeError(f"data: {self.name} is empty")
        return count

    def _first_is_pair(self, count: int) -> bool:
        """Whether the first item that can be read has a label."""
        for position in range(count):
            with suppress(Exception), decoder_messages():
                return isinstance(self._dataset[position], tuple | list)
        return False

    def __len__(self) -> int:
        """Number of items."""
        return len(self.original_index)

    def load(self, position: int) -> Item:
        """Read and prepare an item.

        Raises:
            LightsaeError: If it is neither an image nor (image, label), like the first item.
        """
        where = f"item {position} of {self.name}"
        with decoder_messages() as messages:
            try:
                image, label = self._parts(self._dataset[position], where)
                if not isinstance(image, Tensor | Mapping):
                    image = self._transform(converted(image, self._mode))
            except LightsaeError:
                raise
            except (Exception, SystemExit) as error:
                return Item(None, None, f"{where} is unreadable: {_why(error, messages)}")
        # A tensor with a graph cannot leave a worker.
        if isinstance(image, Mapping):
            image = {name: part.detach() for name, part in image.items()}
        else:
            image = image.detach()
        return Item(image, label, "", warning_line(where, messages))

    def _parts(self, item: Any, where: str) -> tuple[Any, int | None]:
        """Image and label of an item."""
        image, label = item, None
        if self._pairs:
            if not isinstance(item, tuple | list) or len(item) < 2:
                raise LightsaeError(f"{where} is {_kind(item)}, expected (image, label)")
            image = item[0]
        if self.has_labels:
            label = _label(item[1], where, len(self.classes))
        if (
            not isinstance(image, Tensor)
            and not _is_inputs(image)
            and not hasattr(image, "convert")
        ):
            raise LightsaeError(
                f"{where} is {_kind(item)}, expected a PIL image, a tensor or a dict of tensors, "
                "or that and a label"
            )
        return image, label


def _why(error: BaseException, messages: list[str]) -> str:
    """Why an image is unreadable, with what its decoder said last."""
    return f"{reason(error)} ({one_line(messages[-1])})" if messages else reason(error)


def _is_inputs(item: Any) -> bool:
    """Whether an item holds keyword arguments of a model."""
    return (
        isinstance(item, Mapping)
        and bool(item)
        and all(isinstance(name, str) and isinstance(part, Tensor) for name, part in item.items())
    )


def _label(label: Any, where: str, classes: int) -> int:
    """A label as an integer, that of a class if they are named; a float is none."""
    try:
        number = index(label)
    except TypeError:
        raise LightsaeError(f"{where} has label {label!r}, expected an integer") from None
    low, high = (0, classes) if classes else (-(1 << 63), 1 << 63)
    if not low <= number < high:
        raise LightsaeError(f"{where} has label {number}, expected {low} to {high - 1}")
    return number


def _kind(item: Any) -> str:
    """What an item is, for messages.

    Example:
        >>> _kind((None, 0.5))
        'a tuple (NoneType, float)'
    """
    if not isinstance(item, tuple | list):
        return f"a {type(item).__name__}"
    return f"a {type(item).__name__} ({', '.join(type(part).__name__ for part in item[:3])})"


def image_name(images: ImageSet, position: int) -> str:
    """What messages call one of the images."""
    name_of = getattr(images, "name_of", None)
    return str(name_of(position)) if name_of else f"item {position} of {images.name}"


def load_images(
    options: DataOptions, module: nn.Module, begun: Collection[str] = ()
) -> tuple[ImageSet, dict[str, Any]]:
    """Open the images that a model is to see.

    Args:
        options: Which images, and how they are prepared.
        module: The model; a timm model says what it wants.
        begun: Fingerprints of extractions that are to go on, with the images that these had.

    Returns:
        The images, and the settings that were used to prepare them.

    Raises:
        LightsaeError: If the images are missing, or nothing says how to prepare them, or they have
            another number of channels than 1 and 3.
    """
    options.check_source()
    settings = preparation(options, module)
    channels = settings["input_size"][0]
    if channels not in (1, 3) and options.dataset is None:
        raise LightsaeError(
            f"model: {type(module).__name__} takes images of {channels} channels, expected 1 "
            "(grey) or 3 (RGB); others can come as tensors from data.dataset"
        )
    mode = "L" if channels == 1 else "RGB"
    return open_images(options, Transform(settings), mode, begun), settings


def open_images(
    options: DataOptions, transform: Any, mode: str, begun: Collection[str] = ()
) -> ImageSet:
    """Open the images of a source.

    Args:
        options: Which images.
        transform: Makes a tensor `[C, H, W]` of a PIL image.
        mode: PIL mode that images are converted to before: RGB or L.
        begun: Fingerprints of extractions that are to go on, with the images that these had.

    Raises:
        LightsaeError: If the images are missing.
    """
    if options.folder is not None:
        return FolderImages(options.folder, transform, mode, begun, options.labels)
    if options.dataset is not None:
        dataset = _torch_dataset(options.dataset, options.arguments)
        name = f"{options.dataset} {options.arguments}"
        return DatasetImages(dataset, transform, name, mode, labels=options.labels)
    source = _source(options, begun)
    name = options.huggingface or options.webdataset or options.arrays or ""
    images = DatasetImages(source, transform, name, mode, source.fingerprint)
    images.notes += source.notes if isinstance(source, Tars) else []
    return images


def _torch_dataset(path: str, arguments: dict[str, Any]) -> Any:
    """The dataset of a class path."""
    build = import_object(path, "data.dataset")
    try:
        return build(**arguments)
    except Exception as error:
        raise LightsaeError(f"data.dataset: cannot build {path}: {reason(error)}") from error


def _source(options: DataOptions, begun: Collection[str]) -> HuggingFace | Tars | ArrayFile:
    """Images that are read like a torch dataset."""
    image, label, labels = options.image_key, options.label_key, options.labels
    if options.huggingface is not None:
        return HuggingFace(
            options.huggingface, options.split, image, label, options.arguments, labels=labels
        )
    if options.webdataset is not None:
        return Tars(options.webdataset, image, label, begun, labels=labels)
    return ArrayFile(options.arrays or "", image, label, labels=labels)
