"""Images in a seeded order: from a folder, or any torch dataset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lightsae.activations.models import import_object
from lightsae.activations.storage import Array, checksum
from lightsae.errors import LightsaeError
from lightsae.extras import require

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


@dataclass
class DataOptions:
    """The images: a folder, or a torch dataset by class path, and how they are prepared.

    Attributes:
        folder: Folder of images. If all are in subfolders, these are their classes.
        dataset: Dotted path of a torch dataset class, instead of `folder`. Its items are an
            image or (image, label); PIL images are prepared, tensors are taken as they are.
        arguments: Keyword arguments of the dataset's constructor.
        size: Side of the square image that the model sees, in pixels; the model's own by default.
        mean: Per-channel mean that is subtracted; the model's own by default.
        std: Per-channel standard deviation that is divided by; the model's own by default.
        crop: Share of the resized image's side that the centre crop keeps.
        interpolation: How images are resized: nearest, bilinear or bicubic.
    """

    folder: str | None = None
    dataset: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    crop: float | None = None
    interpolation: str | None = None


class Item(NamedTuple):
    """One prepared image, or why there is none.

    Attributes:
        image: Float `[C, H, W]`, or None.
        label: Its class, or None.
        problem: What is wrong with it, or an empty string.
    """

    image: Tensor | None
    label: int | None
    problem: str


class ImageSet(Protocol):
    """Images by number.

    Attributes:
        classes: Names of the labels, or empty.
        has_labels: Whether items have labels.
        fingerprint: Tells one set from another.
        original_index: Int64 `[n]`, the sample that each image belongs to; several images may
            be copies (augmentations) of one sample, and are then never in different splits.
    """

    classes: list[str]
    has_labels: bool
    fingerprint: str
    original_index: Array

    def __len__(self) -> int: ...

    def load(self, position: int) -> Item:
        """Read and prepare an image."""
        ...


class FolderImages:
    """The images below a folder, sorted by path.

    Args:
        folder: The folder.
        transform: Makes a tensor `[C, H, W]` of a PIL image.
        mode: PIL mode that images are converted to: RGB or L.

    Raises:
        LightsaeError: If the folder is missing or holds no image.
    """

    def __init__(self, folder: str | Path, transform: Any, mode: str = "RGB") -> None:
        self._folder, self._transform, self._mode = Path(folder), transform, mode
        if not self._folder.is_dir():
            raise LightsaeError(f"data.folder: there is no folder {folder}")
        found = (p.relative_to(self._folder) for p in self._folder.rglob("*"))
        self._paths = sorted(p for p in found if p.suffix.lower() in _SUFFIXES)
        if not self._paths:
            raise LightsaeError(f"data.folder: {folder} holds no images")
        self.has_labels = all(len(path.parts) > 1 for path in self._paths)
        names = sorted({path.parts[0] for path in self._paths}) if self.has_labels else []
        self.classes = names
        self._labels = {name: label for label, name in enumerate(names)}
        listing = "\n".join(path.as_posix() for path in self._paths)
        self.fingerprint = f"{checksum(listing.encode()):016x}"
        self.original_index: Array = np.arange(len(self._paths))

    def __len__(self) -> int:
        """Number of images, readable or not."""
        return len(self._paths)

    def load(self, position: int) -> Item:
        """Read and prepare an image."""
        path = self._folder / self._paths[position]
        image_module = require("PIL.Image", extra="vision")
        try:
            with image_module.open(path) as image:
                tensor = self._transform(image.convert(self._mode))
        except LightsaeError:
            raise
        except (OSError, ValueError, SyntaxError, image_module.DecompressionBombError) as error:
            return Item(
                None, None, f"{path} is not a readable image: {' '.join(str(error).split())}"
            )
        return Item(tensor, self._labels.get(self._paths[position].parts[0]), "")


class DatasetImages:
    """A torch dataset whose items are an image or (image, label).

    Args:
        dataset: Has a length and items. Its `classes` names the labels, and its `original_index`
            (int per item) names the sample that an item is a copy of, if it has them.
        transform: Makes a tensor of a PIL image; tensors are taken as they are.
        name: Tells one dataset from another.
        mode: PIL mode that images are converted to: RGB or L.
    """

    def __init__(self, dataset: Any, transform: Any, name: str, mode: str = "RGB") -> None:
        self._dataset, self._transform, self._mode = dataset, transform, mode
        if not len(dataset):
            raise LightsaeError(f"data: {name} is empty")
        self.fingerprint = name
        self.has_labels = isinstance(dataset[0], tuple | list)
        self.classes = [str(item) for item in getattr(dataset, "classes", [])]
        original: Sequence[int] | None = getattr(dataset, "original_index", None)
        count = len(dataset)
        self.original_index = np.arange(count) if original is None else np.asarray(original)

    def __len__(self) -> int:
        """Number of items."""
        return len(self._dataset)

    def load(self, position: int) -> Item:
        """Read and prepare an item."""
        try:
            item = self._dataset[position]
            image, label = item[:2] if self.has_labels else (item, None)
            if not isinstance(image, Tensor):
                image = self._transform(image.convert(self._mode))
        except LightsaeError:
            raise
        except (OSError, ValueError, SyntaxError) as error:
            problem = " ".join(str(error).split())
            return Item(
                None, None, f"item {position} of {self.fingerprint} is unreadable: {problem}"
            )
        return Item(image, None if label is None else int(label), "")


def load_images(options: DataOptions, module: nn.Module) -> tuple[ImageSet, dict[str, Any]]:
    """Open the images that a model is to see.

    Args:
        options: Which images, and how they are prepared.
        module: The model; a timm model says what it wants.

    Returns:
        The images, and the settings that were used to prepare them.

    Raises:
        LightsaeError: If the images are missing, or nothing says how to prepare them.
    """
    if (options.folder is None) == (options.dataset is None):
        raise LightsaeError("data: give either folder or dataset (a class path)")
    settings = _preparation(options, module)
    channels = settings["input_size"][0]
    mode = "L" if channels == 1 else "RGB"
    transform = _Transform(settings)
    if options.folder is not None:
        return FolderImages(options.folder, transform, mode), settings
    path = options.dataset or ""
    try:
        dataset = import_object(path, "data.dataset")(**options.arguments)
    except (TypeError, OSError, RuntimeError) as error:
        raise LightsaeError(f"data.dataset: cannot build {path}: {error}") from error
    return DatasetImages(dataset, transform, f"{path} {options.arguments}", mode), settings


def _preparation(options: DataOptions, module: nn.Module) -> dict[str, Any]:
    """What timm says about the model, with the options' values on top."""
    settings: dict[str, Any] = {}
    if hasattr(module, "pretrained_cfg"):
        data = require("timm.data", extra="vision")
        found = data.resolve_model_data_config(module)
        settings = {key: found[key] for key in ("input_size", "mean", "std", "interpolation")}
        settings["crop_pct"] = found.get("crop_pct", 1.0)
    elif options.folder is not None and None in (options.size, options.mean, options.std):
        raise LightsaeError(
            f"data.size, data.mean and data.std are needed: {type(module).__name__} does not say "
            "how its images are prepared"
        )
    channels = settings.get("input_size", (len(options.mean or [0, 0, 0]),))[0]
    settings.setdefault("input_size", (channels, options.size or 224, options.size or 224))
    given = {"mean": options.mean, "std": options.std, "crop_pct": options.crop}
    given["interpolation"] = options.interpolation  # type: ignore[assignment]
    given["input_size"] = (channels, options.size, options.size) if options.size else None  # type: ignore[assignment]
    settings = {"mean": [0.0] * channels, "std": [1.0] * channels, **settings}
    settings = {"crop_pct": 1.0, "interpolation": "bicubic", **settings}
    settings |= {key: value for key, value in given.items() if value is not None}
    for key in ("mean", "std"):
        settings[key] = list(settings[key])[:channels]
    settings["input_size"] = list(settings["input_size"])
    return settings


class _Transform:
    """The evaluation transform of timm, made when the first PIL image needs it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = {**settings, "input_size": tuple(settings["input_size"])}
        self._made: Callable[[Any], Tensor] | None = None

    def __call__(self, image: Any) -> Tensor:
        """Prepare a PIL image."""
        if self._made is None:
            data = require("timm.data", extra="vision")
            made: Callable[[Any], Tensor] = data.create_transform(
                **self._settings, is_training=False
            )
            self._made = made
        return self._made(image)


def collate(
    items: list[tuple[int, Item]],
) -> tuple[list[int], Tensor | None, Tensor | None, list[str]]:
    """Put items into a batch.

    Args:
        items: Positions and what was loaded there.

    Returns:
        Positions of the good ones, their images `[B, C, H, W]` and labels `[B]` (None where there
        are none), and what was wrong with the others.

    Raises:
        LightsaeError: If images differ in shape.
    """
    problems = [item.problem for _, item in items if item.problem]
    good = [(position, item) for position, item in items if item.image is not None]
    if not good:
        return [], None, None, problems
    shapes = {tuple(item.image.shape) for _, item in good if item.image is not None}
    if len(shapes) > 1:
        raise LightsaeError(f"data: images have different shapes {sorted(shapes)}")
    images = torch.stack([item.image for _, item in good if item.image is not None])
    labels = [item.label for _, item in good if item.label is not None]
    return (
        [position for position, _ in good],
        images,
        torch.tensor(labels) if labels else None,
        problems,
    )
