"""latent_names.json: its plain values, and their check."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.interop.files.safe_files import parse_json, read_bounded

FILE = "latent_names.json"
FORMAT = 1
# Five candidates of a million latents.
_MOST_BYTES = 256 << 20
_KEYS: dict[str, type] = {
    "measure": str, "cutoff": float, "about": dict, "words": list,
    "alive": list, "candidates": list, "scores": list,
}  # fmt: skip


def written_names(
    settings: dict[str, Any], alive: Tensor, candidates: Tensor, scores: Tensor
) -> dict[str, Any]:
    """What the file holds: `alive` as 0 and 1, a list of candidates and of scores for each latent.

    Args:
        settings: Plain values.
        alive: bool [d_sae].
        candidates: int64 [d_sae, n].
        scores: float32 [d_sae, n]; NaN is null.
    """
    return {
        "format": FORMAT,
        **settings,
        "alive": alive.int().tolist(),
        "candidates": candidates.tolist(),
        "scores": [[_short(score) for score in row] for row in scores.float().cpu().numpy()],
    }


def _short(score: np.float32) -> float | None:
    """The shortest decimal that is this float32."""
    return None if np.isnan(score) else float(str(score))


def parsed_names(path: Path) -> dict[str, Any]:
    """The fields of a `LatentNames` in a file, of the right kinds.

    Raises:
        LightsaeError: If the file is missing, or something in it is of another kind.
    """
    found = parse_json(read_bounded(path, _MOST_BYTES), path)
    if found.pop("format", None) != FORMAT or set(found) != set(_KEYS):
        raise LightsaeError(f"{path} is no file of latent names of format {FORMAT}")
    for key, kind in _KEYS.items():
        if kind is float and type(found[key]) is int:
            found[key] = float(found[key])
        if type(found[key]) is not kind:
            raise LightsaeError(f"{path}: {key} is no {kind.__name__}")
    if not all(isinstance(word, str) for word in found["words"]):
        raise LightsaeError(f"{path}: words is no list of strings")
    if not all(type(value) is int and value in (0, 1) for value in found["alive"]):
        raise LightsaeError(f"{path}: alive is no list of 0 and 1")
    found["alive"] = torch.tensor(found["alive"], dtype=torch.bool)
    found["candidates"] = torch.from_numpy(
        _table(found["candidates"], np.int64, "candidates", path)
    )
    found["scores"] = torch.from_numpy(_table(found["scores"], np.float32, "scores", path))
    return found


def _table(rows: list[Any], dtype: type[np.generic], name: str, path: Path) -> Array:
    """Rows of equal length, of whole numbers or of numbers and null."""
    allowed = (int,) if dtype is np.int64 else (int, float, type(None))
    width = max(1, len(rows[0])) if rows and isinstance(rows[0], list) else 1
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width:
            raise LightsaeError(f"{path}: {name}[{place}] is no list of {width}")
        if not all(type(value) in allowed for value in row):
            raise LightsaeError(f"{path}: {name}[{place}] is {row}, expected numbers")
    try:
        return np.asarray(rows, dtype=dtype).reshape(len(rows), width)
    except OverflowError as error:
        raise LightsaeError(f"{path}: {name} has a number that is too large") from error
