"""The tiles of an encoder product: from the table, or timed once where LIGHTSAE_AUTOTUNE=1.

What was timed is kept in LIGHTSAE_CACHE (default ~/.cache/lightsae), so that the next process does
not time it again.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import triton
from torch import Tensor

from lightsae_kernels.fused.configs import ProductConfig, product_configs
from lightsae_kernels.fused.encode_product import Taken, encode_product
from lightsae_kernels.fused.select import maxima_columns
from lightsae_kernels.memory import rows_in_block

Timer = Callable[[ProductConfig], float]


def product_config(x: Tensor, W_enc: Tensor) -> ProductConfig:
    """Tiles for a product of `x` [B, D] and `W_enc` [N, D]; the table's first unless tuning is on.

    Nothing is timed while a CUDA graph is captured.
    """
    options = product_configs(x.device, x.dtype, x.shape[1])
    if len(options) == 1 or os.environ.get("LIGHTSAE_AUTOTUNE") != "1":
        return options[0]
    if torch.cuda.is_current_stream_capturing():
        return options[0]
    rows, latents = (triton.next_power_of_2(size) for size in (len(x), len(W_enc)))
    sizes = (rows, latents, x.shape[1])
    name = torch.cuda.get_device_name(x.device)
    key = f"{name} | triton {triton.__version__} | encode {x.dtype} {sizes}"
    return tuned(key, options, lambda config: _time(x, W_enc, config))


def tuned(key: str, options: tuple[ProductConfig, ...], timer: Timer) -> ProductConfig:
    """The fastest option, as remembered under a key or as timed now.

    A file that cannot be read, or remembers an option that is not offered, is timed anew.
    """
    found = _remembered.get(key) or _read().get(key)
    if found not in options:
        found = min(options, key=timer)
        _write({**_read(), key: found})
    _remembered[key] = found
    return found


_remembered: dict[str, ProductConfig] = {}


def _path() -> Path:
    folder = os.environ.get("LIGHTSAE_CACHE")
    return Path(folder or os.path.expanduser("~/.cache/lightsae")) / "tuned.json"


def _read() -> dict[str, ProductConfig]:
    try:
        entries = json.loads(_path().read_text())
        return {str(key): ProductConfig(*tiles) for key, tiles in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(entries: dict[str, ProductConfig]) -> None:
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


def _time(x: Tensor, W_enc: Tensor, config: ProductConfig) -> float:
    """Median milliseconds of a product with stored activations and group maxima."""
    rows = rows_in_block(len(x), len(W_enc), x.element_size(), config.block_b)
    x, group = x[:rows], 16
    a = x.new_empty(len(x), len(W_enc))
    maxima = x.new_empty(len(x), maxima_columns(len(W_enc), group))
    bias = x.new_zeros(len(W_enc))
    taken = Taken(a, maxima, group=group)
    run = lambda: encode_product(x, W_enc, bias, taken, config)  # noqa: E731
    try:
        return float(triton.testing.do_bench(run, warmup=5, rep=20, return_mode="median"))
    except triton.OutOfResources:
        # A relative of the architecture that the table was made for, with less shared memory.
        return float("inf")
