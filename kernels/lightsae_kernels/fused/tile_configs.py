"""Tile sizes per architecture, and which matrix product (fused or library) an encoder uses.

An encoder product is the library's, in row blocks that stay in L2 and are selected from there, or
the fused kernel's, whose tiles leave the group maxima before they are stored. The library has every
float32 product (an IEEE one is none for the matrix unit) and every width that 16 does not divide.
Else the table decides, by counts of bytes, operations and registers: nothing has been timed.

LIGHTSAE_AUTOTUNE=1 times what the table offers, once per shape. What was timed is kept in
LIGHTSAE_CACHE (default ~/.cache/lightsae), so that the next process does not time it again.

Every row compiles without a spill for its architecture (benchmarks/resources.py).
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from torch import Tensor


class ProductConfig(NamedTuple):
    """Tiles of the product, in elements, and how a program runs them.

    Attributes:
        block_b: Rows of x.
        block_n: Latents.
        block_d: Columns of one step of the product.
        super_rows: Row blocks that share latents in L2.
        warps: Warps of a program.
        stages: Steps of the product in flight.
    """

    block_b: int
    block_n: int
    block_d: int
    super_rows: int
    warps: int
    stages: int


# Compute capability; of two-byte elements. The first is used, the others are for tuning.
PRODUCT: dict[int, tuple[ProductConfig, ...]] = {
    80: (
        ProductConfig(128, 128, 64, 8, 8, 3),
        ProductConfig(128, 128, 32, 8, 8, 4),
        ProductConfig(64, 128, 64, 8, 8, 4),
    ),
    # 96 KiB of shared memory: two programs fit where one of 128 KiB does.
    90: (
        ProductConfig(128, 128, 64, 8, 8, 3),
        ProductConfig(128, 256, 64, 8, 8, 3),
        ProductConfig(128, 128, 64, 8, 4, 4),
    ),
    100: (
        ProductConfig(128, 128, 64, 8, 8, 4),
        ProductConfig(128, 128, 128, 8, 8, 3),
        ProductConfig(128, 128, 64, 16, 8, 4),
    ),
}
# From this many latents on a row block is short and its selection cheap beside the product.
LIBRARY_FROM = {80: 16384, 90: 16384, 100: 8192}
# Bytes of pre-activations that stay in L2 beside what streams through it.
LIBRARY_BLOCK = {80: 16 << 20, 90: 32 << 20, 100: 64 << 20}
# The gradient of a regularizer keeps its left operand in registers: latents, columns, rows a step.
# The first row is for one block of rows; the second adds to what is there, which takes registers.
GRADIENT: dict[tuple[int, int], tuple[ProductConfig, ProductConfig]] = {
    (80, 2): (ProductConfig(64, 128, 64, 1, 8, 3), ProductConfig(64, 128, 64, 1, 8, 3)),
    (80, 4): (ProductConfig(64, 64, 16, 1, 8, 2), ProductConfig(64, 64, 16, 1, 8, 2)),
    (90, 2): (ProductConfig(128, 128, 64, 1, 8, 3), ProductConfig(128, 128, 64, 1, 8, 3)),
    (90, 4): (ProductConfig(64, 64, 32, 1, 8, 2), ProductConfig(64, 64, 32, 1, 8, 2)),
    (100, 2): (ProductConfig(128, 128, 64, 1, 8, 3), ProductConfig(128, 128, 64, 1, 8, 3)),
    (100, 4): (ProductConfig(64, 64, 32, 1, 8, 2), ProductConfig(64, 64, 32, 1, 8, 2)),
}
# Rows that do not begin at 16 bytes are read word by word and fill the registers sooner.
RAGGED = ProductConfig(64, 64, 32, 8, 8, 2)
# The interpreter pays by the program: larger tiles are faster, small ones test more edges.
INTERPRETED = ProductConfig(16, 128, 32, 2, 4, 1)
INTERPRETED_PRODUCT: ProductConfig | None = None
INTERPRETED_BLOCK = 1 << 20
_INTERPRETED_ROWS = 16

Options = tuple[ProductConfig | None, ...]
Timer = Callable[[ProductConfig | None], float]


def product_options(device: torch.device, dtype: torch.dtype, d_in: int, d_sae: int) -> Options:
    """What may multiply, the preferred first; None is the library."""
    if device.type == "cpu":
        return (INTERPRETED_PRODUCT,)
    if d_in % 16 or dtype.itemsize > 2:
        return (None,)
    architecture = _architecture(device)
    tiles = PRODUCT[architecture]
    return (None, *tiles) if d_sae >= LIBRARY_FROM[architecture] else (*tiles, None)


def library_rows(device: torch.device, row_bytes: int) -> int:
    """Rows of pre-activations that the library makes at a time: whole 16s.

    Example:
        >>> library_rows(torch.device("cpu"), 4096)
        256
    """
    size = INTERPRETED_BLOCK if device.type == "cpu" else LIBRARY_BLOCK[_architecture(device)]
    return max(16, size // row_bytes // 16 * 16)


def gradient_config(
    device: torch.device, dtype: torch.dtype, d_in: int, *, accumulate: bool
) -> ProductConfig:
    """Tiles of a regularizer's gradient: block_b latents, block_n columns, block_d rows a step."""
    if device.type == "cpu":
        return INTERPRETED
    if d_in % 16:
        return RAGGED
    alone, added = GRADIENT[_architecture(device), dtype.itemsize]
    return added if accumulate or d_in <= added.block_n else alone


def programs(elements: int, device: torch.device, per_warp: int = 256) -> tuple[int, int]:
    """Rows and warps of a program that holds `elements` of a row in registers.

    Example:
        >>> programs(2048, torch.device("cuda"))
        (1, 8)
    """
    rows = _INTERPRETED_ROWS if device.type == "cpu" else 1
    return rows, min(16, max(1, elements // per_warp))


def product_config(x: Tensor, W_enc: Tensor, timer: Timer) -> ProductConfig | None:
    """Who multiplies `x` [B, D] and `W_enc` [N, D]: the table's first unless tuning is on.

    Nothing is timed while a CUDA graph is captured.
    """
    options = product_options(x.device, x.dtype, x.shape[1], len(W_enc))
    if len(options) == 1 or os.environ.get("LIGHTSAE_AUTOTUNE") != "1":
        return options[0]
    if torch.cuda.is_current_stream_capturing():
        return options[0]
    rows, latents = (triton.next_power_of_2(size) for size in (len(x), len(W_enc)))
    sizes = (rows, latents, x.shape[1])
    name = torch.cuda.get_device_name(x.device)
    key = f"{name} | triton {triton.__version__} | encode {x.dtype} {sizes}"
    return tuned(key, options, timer)


def tuned(key: str, options: Options, timer: Timer) -> ProductConfig | None:
    """The fastest option, as remembered under a key or as timed now.

    A file that cannot be read, or remembers an option that is not offered, is timed anew.
    """
    known = _remembered if key in _remembered else _read()
    found = known[key] if known.get(key, options) in options else min(options, key=timer)
    if known is not _remembered:
        _write({**_read(), key: found})
    _remembered[key] = found
    return found


_remembered: dict[str, ProductConfig | None] = {}


def _path() -> Path:
    folder = os.environ.get("LIGHTSAE_CACHE")
    return Path(folder or os.path.expanduser("~/.cache/lightsae")) / "tuned.json"


def _read() -> dict[str, ProductConfig | None]:
    try:
        entries = json.loads(_path().read_text())
        return {str(k): None if v is None else ProductConfig(*v) for k, v in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(entries: dict[str, ProductConfig | None]) -> None:
    """Replace the file in one step: several processes may tune at a time."""
    path = _path()
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(entries, indent=1))
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def _architecture(device: torch.device) -> int:
    """The newest architecture of the tables that is not newer than the device's."""
    major, minor = torch.cuda.get_device_capability(device)
    return max(arch for arch in PRODUCT if arch <= 10 * major + minor)
