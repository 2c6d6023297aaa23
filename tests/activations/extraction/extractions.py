"""Small extractions, and what they wrote."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lightsae.activations import (
    DataOptions,
    Manifest,
    ModelOptions,
    ShardSet,
    extract,
)
from tests.activations.stand_ins import TinyNet

STAND_INS = "tests.activations.stand_ins"


def extract_noise(
    out: Path, count: int = 40, bad: tuple[int, ...] = (), **options: Any
) -> Manifest:
    noise = {"count": count, "bad": bad, "copies": options.pop("copies", 1)}
    noise["large"] = options.pop("large", ())
    model = {"scale": options.pop("scale", 1.0)}
    options = {"layer": "tokens", "tokens": "patch", "dtype": "float32", **options}
    options = {"batch_size": 6, "rows_per_shard": 50, **options}
    (manifest,) = extract(
        ModelOptions(module=f"{STAND_INS}.TinyNet", arguments=model),
        DataOptions(dataset=f"{STAND_INS}.Noise", arguments=noise),
        out=str(out),
        **options,
    )
    return manifest


def contents(folder: Path) -> dict[str, Any]:
    """Every dataset of every shard, and the manifest."""
    found: dict[str, Any] = {"manifest": json.loads((folder / "manifest.json").read_text())}
    for path in sorted(folder.glob("shard-*")):
        with h5py.File(path) as file:
            found |= {f"{path.name}/{name}": file[name][()].tobytes() for name in file}
    return found


def rows_of(folder: Path) -> dict[tuple[int, int], np.ndarray]:
    shards = ShardSet(folder)
    chunks = range(len(shards.chunks))
    index = np.concatenate([shards.read_index(chunk) for chunk in chunks], axis=1)
    rows = np.concatenate(shards.read_activations(chunks))
    shards.close()
    assert index.shape[1] == len({(s, t) for s, t in index[:2].T.tolist()})
    return {(int(s), int(t)): row for s, t, row in zip(*index[:2], rows, strict=True)}


def tiny_model() -> TinyNet:
    from lightsae.activations.extraction.models import load_model

    model = load_model(ModelOptions(module=f"{STAND_INS}.TinyNet"))
    assert isinstance(model, TinyNet)
    return model


def save_picture(path: Path, seed: int) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def extract_folder(folder: Path, out: Path, **options: Any) -> Manifest:
    own: dict[str, Any] = {"size": 16, "mean": [0.5] * 3, "std": options.pop("std", [0.25] * 3)}
    return extract(
        ModelOptions(module=f"{STAND_INS}.TinyNet"),
        DataOptions(folder=str(folder), **own),
        layer="tokens",
        out=str(out),
        **{"batch_size": 4, "rows_per_shard": 5, **options},
    )[0]
