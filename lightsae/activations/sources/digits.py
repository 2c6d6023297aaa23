"""Scikit-learn's handwritten digits, two small encoders trained on them, and their activations.

1797 grey images of 8 x 8 pixels come with scikit-learn, so that everything runs without a
download. Each is enlarged to 16 x 16 and copied with small shifts and rotations; the copies of an
image share its `sample_index` and so its split.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lightsae.activations.extraction.extraction_job import Extraction
from lightsae.activations.extraction.images.image_set import DatasetImages
from lightsae.activations.extraction.models import LayerTap
from lightsae.activations.extraction.option_types import TokenKind
from lightsae.activations.shards.dtypes import StoredDtype
from lightsae.activations.shards.manifest import IMAGES_FROM
from lightsae.extras import require
from lightsae.files import NameOption, expanded, replacing

IMAGE_SIZE = 16


class Digits(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """The digits and, after them, altered copies.

    Args:
        copies: Images per digit: the digit itself and `copies - 1` altered ones.
        seed: Seed of the alterations.

    Attributes:
        images: Float32 `[1797 * copies, 1, 16, 16]`, about zero mean and unit variance.
        labels: Int64 `[1797 * copies]`.
        classes: Names of the ten labels.
        original_index: Int64 `[1797 * copies]`, the digit that each image is a copy of.

    Example:
        >>> digits = Digits(copies=2)
        >>> len(digits), digits[1797][0].shape, int(digits.original_index[1797])
        (3594, torch.Size([1, 16, 16]), 0)
    """

    classes = tuple("0123456789")

    def __init__(self, copies: int = 1, seed: int = 0) -> None:
        originals, labels = load_digits()
        large = functional.interpolate(
            originals[:, None] / 16, size=IMAGE_SIZE, mode="bilinear", align_corners=False
        )
        large = (large - 0.305) / 0.34
        generator = torch.Generator().manual_seed(seed)
        altered = [alter(large, generator) for _ in range(copies - 1)]
        self.images = torch.cat([large, *altered])
        self.labels = labels.repeat(copies)
        self.original_index = np.tile(np.arange(len(labels)), copies)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return self.images[position], int(self.labels[position])


def load_digits() -> tuple[Tensor, Tensor]:
    """The digits as they come with scikit-learn.

    Returns:
        Float32 `[1797, 8, 8]` from 0 to 16 and int64 `[1797]`, the digit each shows.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
    """
    found = require("sklearn.datasets", extra="demo").load_digits()
    return torch.from_numpy(found.images).float(), torch.from_numpy(found.target).long()


def alter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate each image by up to 12 degrees and shift it by up to 1.5 pixels.

    Args:
        images: `[B, C, H, W]`.
        generator: Source of the alterations.

    Returns:
        `[B, C, H, W]`.
    """
    count, size = len(images), images.shape[-1]
    drawn = torch.rand(count, 3, generator=generator) * 2 - 1
    angle = drawn[:, 0] * math.radians(12)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    affine = torch.cat([rotation, drawn[:, 1:, None] * (2 * 1.5 / size)], dim=2)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class Training:
    """How a small encoder is trained.

    Attributes:
        steps: Optimizer steps.
        batch_size: Images per step.
        lr: Peak of the one-cycle learning rate.
        seed: Seed of weights, batches and alterations.
    """

    steps: int = 400
    batch_size: int = 128
    lr: float = 2e-3
    seed: int = 0


def train_digits_vit(folder: str | Path, training: Training = Training(seed=0)) -> nn.Module:
    """A timm vision transformer that tells digits apart (4 blocks, width 64, 16 patches).

    Args:
        folder: Where its weights are kept; a second call finds them there.
        training: How it is trained.

    Returns:
        The module, frozen; it takes `[B, 1, 16, 16]`.

    Raises:
        MissingExtraError: If timm or scikit-learn is not installed.
    """
    timm = require("timm", extra="demo")

    def build() -> nn.Module:
        module: nn.Module = timm.create_model(
            "vit_tiny_patch16_224",
            img_size=IMAGE_SIZE,
            patch_size=4,
            in_chans=1,
            num_classes=10,
            embed_dim=64,
            depth=4,
            num_heads=4,
        )
        return module

    return train_on_digits(build, Path(folder), "digits-vit", training)


def train_digits_cnn(folder: str | Path, training: Training = Training(seed=1)) -> nn.Module:
    """A small convolutional network that tells digits apart; its layer `4` gives `[B, 64]`.

    Args:
        folder: Where its weights are kept; a second call finds them there.
        training: How it is trained.

    Returns:
        The module, frozen; it takes `[B, 1, 16, 16]`.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
    """

    def build() -> nn.Module:
        return nn.Sequential(
            _conv(1, 16), _conv(16, 32), _conv(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(64, 10),
        )  # fmt: skip

    return train_on_digits(build, Path(folder), "digits-cnn", training)


def digits_embeddings(folder: str | Path) -> Tensor:
    """Each digit's embedding by the convolutional network, for scores of monosemanticity.

    Args:
        folder: Where the network's weights are kept.

    Returns:
        Float32 `[1797, 64]`, rows of unit norm; row i belongs to `sample_index` i.
    """
    tap = LayerTap(train_digits_cnn(folder), "4")
    return functional.normalize(tap(Digits().images), dim=1).clone()


def _conv(inputs: int, outputs: int) -> nn.Module:
    """Convolution, normalisation, activation, halving."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.GELU(),
        nn.MaxPool2d(2),
    )  # fmt: skip


def train_on_digits(
    build: Callable[[], nn.Module], folder: Path, name: str, training: Training
) -> nn.Module:
    """A network that tells digits apart: trained, or loaded where that was done before.

    Args:
        build: Makes the untrained network; it takes `[B, 1, 16, 16]` and gives `[B, 10]`.
        folder: Where its weights are kept; a second call finds them there.
        name: What they are kept under, together with the settings of the training.
        training: How it is trained.

    Returns:
        The module, frozen.
    """
    from safetensors.torch import load_file, save_file

    settings = "-".join(f"{value:g}" for value in asdict(training).values())
    path = folder / f"{name}-{settings}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        module = build()
        if path.exists():
            module.load_state_dict(load_file(path))
        else:
            with _one_thread():
                _train(module, training)
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                save_file(module.state_dict(), temporary)
    return module.eval().requires_grad_(False)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Operations this small lose more to waiting threads than they gain from them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(module: nn.Module, training: Training) -> None:
    """Teach a module the ten classes, on altered images."""
    digits = Digits()
    generator = torch.Generator().manual_seed(training.seed)
    optimizer = torch.optim.AdamW(module.parameters(), lr=training.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.lr, total_steps=training.steps
    )
    module.train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # Such small layers lose more time to threads than they gain.
    for _ in range(training.steps):
        chosen = torch.randint(len(digits), (training.batch_size,), generator=generator)
        images = alter(digits.images[chosen], generator)
        loss = functional.cross_entropy(module(images), digits.labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.set_num_threads(threads)


class DigitsSource:
    """Makes shards from the digits: trains the transformer, or finds it, and extracts a layer.

    Args:
        encoders: Folder that keeps the trained encoders; beside the shards by default.
        layer: Module of the transformer whose output is stored.
        tokens: class, patch, pooled or all.
        copies: Images per digit, altered copies included.
        dtype: Stored dtype.
        seed: Seed of the order and of the copies.
        training_steps: Optimizer steps of the transformer.

    Example:
        >>> DigitsSource(copies=2).copies
        2
    """

    def __init__(
        self,
        encoders: NameOption | None = None,
        layer: str = "blocks.3",
        tokens: TokenKind = "class",
        copies: int = 8,
        dtype: StoredDtype = "float16",
        seed: int = 0,
        training_steps: int = 400,
    ) -> None:
        self.encoders = None if encoders is None else expanded(encoders)
        self.layer, self.tokens = layer, tokens
        self.copies, self.dtype, self.seed = copies, dtype, seed
        self.training_steps = training_steps

    def write(self, path: Path) -> None:
        """Make the folder of shards, or finish one that was interrupted.

        Args:
            path: The folder.
        """
        folder = Path(self.encoders) if self.encoders else path.with_name(f"{path.name}-encoders")
        module = train_digits_vit(folder, Training(steps=self.training_steps))
        name = f"digits, {self.copies} copies, seed {self.seed}"
        images: Any = DatasetImages(Digits(self.copies, self.seed), None, name)
        Extraction(
            tap=LayerTap(module, self.layer),
            images=images,
            out=path,
            model_name="digits-vit",
            tokens=self.tokens,
            dtype=self.dtype,
            batch_size=256,
            seed=self.seed,
            rows_per_shard=65_536,
            device="cpu",
            origin={
                IMAGES_FROM: {
                    "dataset": f"{__name__}.{Digits.__name__}",
                    "arguments": {"copies": self.copies, "seed": self.seed},
                }
            },
        ).run()
