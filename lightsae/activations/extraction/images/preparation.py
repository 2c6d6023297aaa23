"""Image preparation: the transform that a model expects, and the options of the images."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from lightsae.activations.extraction.images.preparation_checks import checked
from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.files import NameOption, expanded

if TYPE_CHECKING:
    from torch import Tensor, nn

Interpolation = Literal["nearest", "bilinear", "bicubic"]
_SOURCES = ("folder", "dataset", "huggingface", "webdataset", "arrays")
_KEYS = ("input_size", "mean", "std", "crop_pct", "interpolation", "crop_mode")
_FOR = {
    "arguments": ("dataset", "huggingface"),
    "split": ("huggingface",),
    "image_key": ("huggingface", "webdataset", "arrays"),
    "label_key": ("huggingface", "webdataset", "arrays"),
}


@dataclass
class DataOptions:
    """The images, from one of five kinds of sources, and how they are prepared.

    Attributes:
        folder: Folder of images, all in subfolders, which are their classes, or none.
        dataset: Dotted path of a torch dataset class, instead of `folder`. Its items are an
            image or (image, label); PIL images are prepared, tensors are taken as they are, and so
            are dicts of tensors, the keyword arguments of a model of sound or text.
        huggingface: Hugging Face dataset: a folder that `save_to_disk` wrote, or a name or path
            that `load_dataset` takes.
        webdataset: WebDataset tars on this machine; braces name several: `train-{000..146}.tar`.
        arrays: HDF5, NPZ or NPY file of images uint8 [N, H, W, C] or [N, C, H, W].
        split: Split of the Hugging Face dataset, if it has several.
        image_key: Column, extension in the tars, or array of the images.
        label_key: Column, extension in the tars, or array of the labels.
        labels: Whether images have labels where the source has some; false takes all images without
            them, so also those of a folder that holds both images and folders of images.
        arguments: Keyword arguments of the dataset's constructor, or of `load_dataset`.
        size: Side of the square image that the model sees, in pixels; the model's own by default.
        mean: Per-channel mean that is subtracted; the model's own by default.
        std: Per-channel standard deviation that is divided by; the model's own by default.
        crop: Share of the resized image's side that the centre crop keeps, above 0 and at most 1.
        interpolation: How images are resized.

    Raises:
        LightsaeError: If a value cannot be, naming its key.
    """

    folder: NameOption | None = None
    dataset: str | None = None
    huggingface: NameOption | None = None
    webdataset: NameOption | None = None
    arrays: NameOption | None = None
    split: NameOption | None = None
    image_key: NameOption | None = None
    label_key: NameOption | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    crop: float | None = None
    interpolation: Interpolation | None = None
    labels: bool = True

    def __post_init__(self) -> None:
        for kind in _SOURCES:
            if getattr(self, kind) == "":
                raise LightsaeError(f"data.{kind} is '', expected the name of one")
        for name in ("folder", "huggingface", "webdataset", "arrays"):
            if getattr(self, name) is not None:
                setattr(self, name, expanded(getattr(self, name)))
        for name in ("split", "image_key", "label_key"):
            if getattr(self, name) is not None:
                setattr(self, name, str(getattr(self, name)))
        if self.size is not None and self.size < 1:
            raise LightsaeError(f"data.size is {self.size}, expected at least 1 pixel")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise LightsaeError(f"data.crop is {self.crop}, expected above 0 and at most 1")
        if not all(math.isfinite(value) for value in self.mean or []):
            raise LightsaeError(f"data.mean is {self.mean}, expected finite numbers")
        if not all(0 < value < math.inf for value in self.std or []):
            raise LightsaeError(f"data.std is {self.std}, expected finite numbers above 0")
        known = get_args(Interpolation)
        if self.interpolation is not None and self.interpolation not in known:
            raise LightsaeError(
                f"data.interpolation is {self.interpolation!r}, expected one of {', '.join(known)}"
            )

    def check_source(self) -> None:
        """Refuse none or two sources, and a key that the source does not take.

        Raises:
            LightsaeError: Naming the keys.

        Example:
            >>> DataOptions(folder="photos", arrays="digits.npz").check_source()
            Traceback (most recent call last):
            ...
            lightsae.errors.LightsaeError: data: give one of folder, dataset, huggingface, \
webdataset, arrays; here are folder, arrays
        """
        given = [kind for kind in _SOURCES if getattr(self, kind) is not None]
        if len(given) != 1:
            here = f"here are {', '.join(given)}" if given else "there is none"
            raise LightsaeError(f"data: give one of {', '.join(_SOURCES)}; {here}")
        if self.label_key and not self.labels:
            raise LightsaeError(
                f"data.label_key is {self.label_key!r} and data.labels is false: give one of them"
            )
        for key, kinds in _FOR.items():
            if getattr(self, key) and given[0] not in kinds:
                raise LightsaeError(
                    f"data.{key} is {getattr(self, key)!r}: it is for {' and '.join(kinds)}, "
                    f"data.{given[0]} takes none"
                )


def preparation(options: DataOptions, module: "nn.Module") -> dict[str, Any]:
    """What the model says of its images, with the options' values on top.

    Args:
        options: Those of the user.
        module: The model: one of timm, or its `preparation` says it in the same words.

    Returns:
        `input_size` [C, H, W], `mean`, `std`, `crop_pct`, `interpolation`, and `crop_mode` if it
        is another than center.

    Raises:
        LightsaeError: If nothing says how to prepare images that are no tensors, or what is said
            cannot be, or the model was built for images of another size.

    Example:
        >>> from torch import nn
        >>> preparation(DataOptions(folder="photos", size=32, mean=[0.5], std=[0.5]), nn.Identity())
        {'input_size': [1, 32, 32], 'mean': [0.5], 'std': [0.5], 'crop_pct': 1.0, \
'interpolation': 'bicubic'}
    """
    _check_size(options, module)
    settings = _settings_of(module)
    if (
        not settings
        and options.dataset is None
        and None
        in (
            options.size,
            options.mean,
            options.std,
        )
    ):
        raise LightsaeError(
            f"data.size, data.mean and data.std are needed: {type(module).__name__} does not say "
            "how its images are prepared"
        )
    said = settings.get("mean") or settings.get("std")
    numbers = said or options.mean or options.std or [0, 0, 0]
    channels = settings.get("input_size", (len(numbers),))[0]
    settings = {"mean": [0.0] * channels, "std": [1.0] * channels, **settings}
    settings = {"crop_pct": 1.0, "interpolation": "bicubic", **settings}
    settings = {"input_size": (channels, 224, 224), **settings}
    settings |= {key: list(settings[key])[:channels] for key in ("mean", "std")}
    settings |= _given(options, channels)
    return {
        key: _plain(settings[key]) for key in _KEYS if settings.get(key) not in (None, "center")
    }


def _settings_of(module: "nn.Module") -> dict[str, Any]:
    """What the model says, nothing if it is neither timm's nor described."""
    said = getattr(module, "preparation", None)
    if isinstance(said, dict):
        return checked(said, type(module).__name__)
    if not hasattr(module, "pretrained_cfg"):
        return {}
    found = require("timm.data", extra="vision").resolve_model_data_config(module)
    channels, height, width = found["input_size"]
    built, _ = _built_for(module)
    found["input_size"] = (_channels(module, channels), *(built or (height, width)))
    return {key: found[key] for key in _KEYS if key in found}


def _channels(module: "nn.Module", said: int) -> int:
    """The channels that a model of timm takes, which its configuration says of its weights."""
    cfg: Any = module.pretrained_cfg
    first = cfg.get("first_conv")
    name = first[0] if isinstance(first, list | tuple) else first
    convolution = dict(module.named_modules()).get(name or "")
    return getattr(convolution, "in_channels", said)


def _built_for(module: "nn.Module") -> tuple[tuple[int, int] | None, bool]:
    """The height and width that a model of timm was built for, and whether it takes no other.

    Its configuration tells those of its weights, whatever `img_size` was among its arguments.
    """
    for part in module.modules():
        size = getattr(part, "img_size", None)
        if isinstance(size, int):
            size = (size, size)
        if isinstance(size, tuple | list) and len(size) == 2:
            return (size[0], size[1]), getattr(part, "strict_img_size", False) is True
    return None, False


def _check_size(options: DataOptions, module: "nn.Module") -> None:
    """Refuse images of another size than a model of timm takes."""
    if options.size is None or options.dataset is not None or not hasattr(module, "pretrained_cfg"):
        return
    built, strict = _built_for(module)
    if built is not None and strict and built != (options.size, options.size):
        raise LightsaeError(
            f"data.size is {options.size}: {type(module).__name__} was built for images of "
            f"{built[0]} x {built[1]} (img_size among its arguments says for which): leave "
            "data.size out, or make both the same"
        )


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _given(options: DataOptions, channels: int) -> dict[str, Any]:
    """The options that have a value."""
    for key, values in (("mean", options.mean), ("std", options.std)):
        if values is not None and len(values) != channels:
            raise LightsaeError(
                f"data.{key} has {len(values)} numbers, expected {channels}, one per channel"
            )
    given = {
        "mean": options.mean,
        "std": options.std,
        "crop_pct": options.crop,
        "interpolation": options.interpolation,
        "input_size": None if options.size is None else (channels, options.size, options.size),
    }
    return {key: value for key, value in given.items() if value is not None}


class Transform:
    """The evaluation transform of timm, made when the first PIL image needs it.

    Args:
        settings: As `preparation` returns them.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = {**settings, "input_size": tuple(settings["input_size"])}
        self._made: Callable[[Any], Tensor] | None = None

    def __call__(self, image: Any) -> "Tensor":
        """Prepare a PIL image.

        Raises:
            ValueError: If it is so narrow that resizing would make more pixels than Pillow opens.
        """
        self._check_growth(*image.size)
        if self._made is None:
            data = require("timm.data", extra="vision")
            made: Callable[[Any], Tensor] = data.create_transform(
                **self._settings, is_training=False
            )
            self._made = made
        return self._made(image)

    def _check_growth(self, width: int, height: int) -> None:
        """Refuse an image that is so narrow that resizing its short side makes it huge."""
        limit = require("PIL.Image", extra="vision").MAX_IMAGE_PIXELS
        if limit is None or self._settings.get("crop_mode", "center") != "center":
            return
        side = max(self._settings["input_size"][1:]) / self._settings["crop_pct"]
        pixels = int(side * side * max(width, height) / min(width, height))
        if pixels > 2 * limit:
            raise ValueError(
                f"its sides are {width} and {height}, resized it would be {pixels} pixels"
            )
