"""Rows as other programs store them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VALUES = np.random.default_rng(0).standard_normal((30, 4, 6), dtype=np.float32)


Save = Callable[[Path], Path]


def npy(folder: Path) -> Path:
    np.save(folder / "a.npy", VALUES)
    return folder / "a.npy"


def npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", acts=VALUES)
    return folder / "a.npz"


def saev(folder: Path, **changes: Any) -> Path:
    about = {"family": "clip", "ckpt": "ViT-B-16", "layers": [3, 7], "patches_per_ex": 3,
             "cls_token": True, "d_model": 6, "n_ex": 30, "dtype": "float32"}  # fmt: skip
    both = np.stack([VALUES + 100, VALUES], axis=1)
    for number, part in enumerate((both[:20], both[20:])):
        part.tofile(folder / f"acts{number:06d}.bin")
    listed = [{"name": f"acts{i:06d}.bin", "n_ex": n} for i, n in ((0, 20), (1, 10))]
    (folder / "metadata.json").write_text(json.dumps({**about, **changes}))
    (folder / "shards.json").write_text(json.dumps(listed))
    return folder


def saelens(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"blocks.3.hook": datasets.Array2D((4, 6), "float32"),
         "token_ids": datasets.Sequence(datasets.Value("int32"))}
    )  # fmt: skip
    rows = {"blocks.3.hook": VALUES, "token_ids": [[0] * 4] * 30}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder / "cached"))
    return folder / "cached"


def saev_by_its_writer(folder: Path, values: np.ndarray, room: int, **about: Any) -> None:
    """Files of full shape, the last one filled in part: all that saev 0.1.0 writes."""
    (folder / "metadata.json").write_text(json.dumps(about))
    for number, start in enumerate(range(0, len(values) + 1, room)):
        part = values[start : start + room]
        whole = np.zeros((room, *values.shape[1:]), np.float32)
        whole[: len(part)] = part
        whole.tofile(folder / f"acts{number:06d}.bin")


SAEV = {"layers": [3], "n_patches_per_img": 3, "cls_token": True, "d_vit": 6, "n_imgs": 30,
         "n_patches_per_shard": 80}  # fmt: skip
