"""Small pictures on the disk and in memory, and how they are prepared."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

STAND_INS = "tests.activations.stand_ins"


OWN = {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3}


def save_picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def as_tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
