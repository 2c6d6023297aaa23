"""Two small classifiers of digits: a ViT to study and a convolutional net to judge it by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.files import replacing


def digits_vit() -> nn.Module:
    """A ViT of timm's for 8 x 8 images: patches of 2, width 64, 4 blocks, 10 classes."""
    vit: Any = require("timm", extra="vision").create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=2, in_chans=1, embed_dim=64, depth=4,
        num_heads=4, num_classes=10,
    )  # fmt: skip
    module: nn.Module = vit
    return module


def digits_cnn() -> nn.Module:
    """Two convolutions and a 64-wide embedding (all but the last layer), 10 classes."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 64), nn.Tanh(), nn.Linear(64, 10),
    )  # fmt: skip


def trained(
    make: Callable[[], nn.Module],
    images: Tensor,
    labels: Tensor,
    weights: Path,
    *,
    seed: int,
    epochs: int = 6,
    show: bool = True,
) -> nn.Module:
    """Train a classifier, or read it from the file where an earlier call left it.

    Args:
        make: Builds the untrained module; called under the seed.
        images: [n, 1, 8, 8] float32.
        labels: [n] int64.
        weights: safetensors file; written as a whole once training is done.
        seed: Seed of the weights and of the order of images; the global one is left alone.
        epochs: Passes over the images.
        show: Show a progress bar.

    Returns:
        The module in evaluation mode, without gradients.

    Raises:
        LightsaeError: If the file is there but does not hold this module.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make()
        if weights.exists():
            _read(module, weights)
        else:
            _train(module, images, labels, epochs, f"train {weights.stem}", show)
            weights.parent.mkdir(parents=True, exist_ok=True)
            with replacing(weights) as temporary:
                save_file(module.state_dict(), temporary)
    return module.eval().requires_grad_(False)


def _train(
    module: nn.Module, images: Tensor, labels: Tensor, epochs: int, title: str, show: bool
) -> None:
    steps = epochs * -(-len(images) // 128)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    with Progress(console=Console(stderr=True, quiet=not show)) as progress:
        task = progress.add_task(title, total=steps)
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(128):
                loss = F.cross_entropy(module(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.advance(task)


def _read(module: nn.Module, weights: Path) -> None:
    try:
        module.load_state_dict(load_file(weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LightsaeError(
            f"{weights} does not hold this model's weights: {reason}; remove it to train anew"
        ) from error
