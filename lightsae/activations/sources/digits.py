"""scikit-learn's handwritten digits, seen by a small ViT that is trained on the spot."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightsae.activations.extract import Extraction
from lightsae.activations.images import Item
from lightsae.activations.models import LayerTap
from lightsae.activations.sources.digits_models import digits_vit, trained
from lightsae.errors import LightsaeError
from lightsae.extras import require


class DigitImages:
    """The 1797 digits of scikit-learn, 8 x 8 pixels, each with shifted and turned copies.

    Args:
        copies: Images per digit; the first is the digit as it is.
        seed: Seed of the shifts, turns and sizes of the others.

    Attributes:
        pixels: All images, [digits * copies, 1, 8, 8] float32 in [0, 1]; image i is copy
            i % copies of digit i // copies.
        labels: Their classes, [digits * copies] int64.

    Raises:
        LightsaeError: If copies is smaller than 1.
        MissingExtraError: If scikit-learn is not installed.

    Example:
        >>> images = DigitImages(copies=2)
        >>> images.pixels.shape, int(images.original_index[3])
        (torch.Size([3594, 1, 8, 8]), 1)
    """

    has_labels = True

    def __init__(self, copies: int = 8, seed: int = 0) -> None:
        if copies < 1:
            raise LightsaeError(f"copies must be at least 1, got {copies}")
        digits = require("sklearn.datasets", extra="demo").load_digits()
        plain = torch.from_numpy(digits.images.astype(np.float32) / 16).unsqueeze(1)
        changed = [_change(plain, seed, copy) for copy in range(1, copies)]
        self.pixels = torch.stack([plain, *changed], dim=1).flatten(0, 1)
        self.labels = torch.from_numpy(digits.target).repeat_interleave(copies)
        self.original_index = np.repeat(np.arange(len(plain)), copies)
        self.classes = [str(digit) for digit in digits.target_names]
        self.fingerprint = f"scikit-learn digits, {copies} copies, seed {seed}"

    def __len__(self) -> int:
        """Images, copies counted."""
        return len(self.pixels)

    def load(self, position: int) -> Item:
        """One image and its class."""
        return Item(self.pixels[position], int(self.labels[position]), "")


def _change(images: Tensor, seed: int, copy: int) -> Tensor:
    """Turn by up to 15 degrees, shift by up to a pixel, scale by up to a tenth."""
    generator = torch.Generator().manual_seed(1000 * seed + copy)

    def draw(limit: float) -> Tensor:
        return (torch.rand(len(images), generator=generator) * 2 - 1) * limit

    turn, size = draw(math.radians(15)), 1 + draw(0.1)
    matrix = torch.stack(
        [
            torch.stack([turn.cos() * size, -turn.sin() * size, draw(1 / 4)], dim=1),
            torch.stack([turn.sin() * size, turn.cos() * size, draw(1 / 4)], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


class DigitsSource:
    """Makes shards of a digits ViT's activations; nothing is fetched.

    Trains the ViT on all digits (under a minute on two cores), keeps its weights beside the folder
    of shards, and extracts one layer. The samples of the shards are the digits, their tokens the
    copies, so that copies of a digit are never in different splits.

    Args:
        copies: Images per digit; the first is the digit as it is, the others shifted and turned.
        layer: Module of the ViT whose class token is stored.
        seed: Seed of the ViT and of the copies.
        progress: Show progress bars.

    Example:
        >>> DigitsSource(copies=4).layer
        'norm'
    """

    def __init__(
        self, copies: int = 8, layer: str = "norm", seed: int = 0, progress: bool = True
    ) -> None:
        self.copies = copies
        self.layer = layer
        self.seed = seed
        self.progress = progress

    def write(self, path: Path) -> None:
        """Make the folder of shards, or finish one that was interrupted.

        Args:
            path: The folder.

        Raises:
            LightsaeError: If the folder was begun with other settings or the layer is not there.
        """
        images = DigitImages(self.copies, self.seed)
        weights = Path(path).with_name(f"{Path(path).name}-vit.safetensors")
        vit = trained(
            digits_vit, images.pixels, images.labels, weights, seed=self.seed, show=self.progress
        )
        Extraction(
            tap=LayerTap(vit, self.layer),
            images=images,
            out=Path(path),
            model_name="digits ViT",
            tokens="class",
            batch_size=512,
            seed=self.seed,
            show_progress=self.progress,
        ).run()
