"""The data of the study: shards of a digits ViT, and embeddings of another encoder."""

from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from lightsae.activations import LayerTap
from lightsae.activations.sources.digits import Digits, DigitsSource, train_digits_cnn
from lightsae.demo.study import Setting
from lightsae.files import replacing

ENCODER = "a small CNN trained on the same digits"
COPIES, SEED = 8, 0


def prepare(out: Path, console: Console) -> Setting:
    """Make shards and embeddings, or find them made."""
    encoders = out / "encoders"
    with console.status("training a small ViT on digits, extracting its class token"):
        source = DigitsSource(str(encoders), layer="blocks.2", copies=COPIES, seed=SEED)
        source.write(out / "shards")
    setting = Setting(out / "shards", out / "embeddings.safetensors", COPIES)
    if not setting.embeddings.exists():
        with console.status("training a small CNN on digits, for monosemanticity"):
            tap = LayerTap(train_digits_cnn(encoders), "4")
        with replacing(setting.embeddings) as temporary:
            save_file({"embeddings": _embed(tap)}, temporary)
    return setting


def load_images(setting: Setting) -> Tensor:
    """All images, image i being copy i % copies of digit i // copies, [images, 1, 16, 16]."""
    digits = Digits(setting.copies, SEED)
    by_digit: Tensor = digits.images.unflatten(0, (setting.copies, -1)).transpose(0, 1)
    return by_digit.flatten(0, 1)


def _embed(tap: LayerTap) -> Tensor:
    """The CNN's embedding of every image, in the order of `load_images`."""
    images = load_images(Setting(Path(), Path(), COPIES))
    return torch.cat([tap(part).clone() for part in images.split(1024)])
