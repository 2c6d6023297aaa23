"""Memory of a training step by part: predicted by formula, and measured.

    python benchmarks/steps/step_memory.py --d_in 1024 --d_sae 65536 --k 64    # on a GPU
    python benchmarks/steps/step_memory.py    # anywhere

On a GPU torch's allocator is asked. Elsewhere the kernels are interpreted, at a small size, and the
storages that torch holds after each operation are counted. Products are in two bytes, parameters in
four; the optimizer is SAEAdam with a copy of W_enc; M are the group maxima of a row. In brackets is
what depends: activations are kept for a regularizer's backward pass, or made again there, and
otherwise end with the forward pass (in row blocks of 256 MiB, where that is less).
"""

import argparse
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from lightsae_kernels import encode_residual, memory
from lightsae_kernels.fused.select import group_size, maxima_columns
from lightsae_kernels.fused.tile_configs import library_rows, product_options

from lightsae.sae import SparseAutoencoder, TopK
from lightsae.training import SAEAdam

REGULARIZERS = ("none", "off_support_l1", "l1_l2_ratio")
SMALL = {"batch": 256, "d_in": 64, "d_sae": 2048, "k": 8}


class Part(NamedTuple):
    """One line of the table.

    Attributes:
        name: What the memory is for.
        formula: In B, D, N, k; two bytes an activation.
        predicted: Bytes.
    """

    name: str
    formula: str
    predicted: int


def main() -> int:
    options = parse()
    sizes = {name: getattr(options, name) for name in SMALL}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    view = Table(
        "part", "bytes", *(f"{how}\n{name}" for name in REGULARIZERS for how in ("predicted",
        "measured")), title=f"MiB of a training step on {device.type}, {sizes}",
    )  # fmt: skip
    for column in view.columns[2:]:
        column.justify = "right"
    found = [
        (
            parts(sizes, name, options.recompute, device),
            measure(sizes, name, options.recompute, device),
        )
        for name in REGULARIZERS
    ]
    for row in range(len(found[0][0])):
        figures = []
        for predicted, measured in found:
            one = predicted[row]
            figures += [f"{size / 2**20:.2f}" for size in (one.predicted, measured[one.name])]
        view.add_row(found[-1][0][row].name, found[-1][0][row].formula, *figures)
    Console(width=150).print(view)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in SMALL.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--recompute", action="store_true", help="keep no activations")
    return parser.parse_args()


def parts(
    sizes: dict[str, int], regularizer: str, recompute: bool, device: torch.device
) -> list[Part]:
    """What is predicted; what has B or N elements is left out."""
    B, D, N, k = sizes.values()
    elements = 2 * N * D + N + D
    held = 8 * B * D + 10 * B * k
    whole, block_bytes = 2 * B * N, memory.memory().block_bytes
    part = first = min(whole, block_bytes)
    if product_options(device, torch.float16, D, N)[0] is None:
        first = min(whole, block_bytes, library_rows(device, 2 * N) * 2 * N)
    group = group_size(N, k)
    maxima = first * maxima_columns(N, group) // N
    kept = regularizer != "none" and not recompute
    # A row block made again is gone before the decoder's gradient is there.
    again = 4 * B * k + max(0, part - 4 * N * D) if regularizer != "none" and recompute else 0
    # torch's update on the CPU goes through the decoder in blocks.
    block = min(4 * N * D, 16 << 20) if device.type == "cpu" else 0
    return [
        Part("parameters", "4 (2 N D + N + D)", 4 * elements),
        Part("optimizer state", "8 (2 N D + N + D) + 4 N D", 8 * elements + 4 * N * D),
        Part("held for backward", "8 B D + 10 B k [+ 2 B N]", held + whole * kept),
        Part(
            "peak of forward besides",
            "max(4 B D + 6 B k,\n[2 B N +] 2 B M + 4 B k - 2 B D)",
            max(4 * B * D + 6 * B * k, first * (not kept) + maxima + 4 * B * k - 2 * B * D),
        ),
        Part("gradients", "4 (2 N D + N + D)", 4 * elements),
        Part(
            "peak of backward besides",
            "(17 + D / 16) B k [+ 4 B k +\nmax(0, 2 B N - 4 N D)]",
            (16 * 17 + D) * B * k // 16 + again,
        ),
        Part("peak of update besides", "0, on the CPU 4 N D", block),
    ]


def measure(
    sizes: dict[str, int], regularizer: str, recompute: bool, device: torch.device
) -> dict[str, int]:
    """What each part took, in bytes."""
    B, D, N, k = sizes.values()
    meter = Allocator() if device.type == "cuda" else Storages()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float16
    options: dict[str, Any] = {} if regularizer == "none" else {"regularizer": regularizer}
    with memory.bounded(recompute=recompute), meter.counting(), torch.device(device):
        x = torch.randn(B, D)
        start = meter.held()
        sae = SparseAutoencoder(D, N, TopK(k))
        parameters = meter.held() - start
        optimizer = SAEAdam(sae.parameters())
        optimizer.keep_unit_rows(sae.W_dec)
        for name in ("W_enc", "W_dec"):
            optimizer.keep_copy(getattr(sae, name), sae.keep_narrow(name, dtype))
        for _ in range(2):
            optimizer.zero_grad()
            before = meter.restart()
            with torch.autocast(device.type, dtype):
                weights = sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec
                encoded, left = encode_residual(
                    x / sae.scale, *weights, k, W_enc_narrow=sae.narrow("W_enc"),
                    W_dec_narrow=sae.narrow("W_dec"), backend="triton", **options,
                )  # fmt: skip
                loss = left.error.mean() + 0.01 * encoded.penalty
            del encoded, left
            forward, kept = meter.peak(), meter.restart()
            loss.backward()
            del loss
            backward, ended = meter.peak(), meter.restart()
            optimizer.step()
            update, after = meter.peak(), meter.restart()
    gradients = sum(p.grad.nbytes for p in sae.parameters() if p.grad is not None)
    return {
        "parameters": parameters,
        "optimizer state": before - start - parameters,
        "held for backward": kept - before,
        "peak of forward besides": forward - kept,
        "gradients": gradients,
        "peak of backward besides": backward - kept - gradients,
        "peak of update besides": update - max(ended, after),
    }


class Allocator:
    """Asks torch's allocator on the GPU."""

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Nothing to begin."""
        yield

    def held(self) -> int:
        """Bytes in use."""
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    def peak(self) -> int:
        """Most bytes in use since `restart`."""
        return torch.cuda.max_memory_allocated()

    def restart(self) -> int:
        """Bytes in use, from which the next peak is counted."""
        torch.cuda.reset_peak_memory_stats()
        return self.held()


class Storages(TorchDispatchMode):
    """Counts the storages that operations made and that are still there after each operation."""

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._most = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is made inside."""
        gc.freeze()
        with self:
            yield
        gc.unfreeze()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                reference = StorageWeakRef(tensor.untyped_storage())
                self._live[reference.cdata] = reference, tensor.untyped_storage().nbytes()
        if self._counted() > self._most:
            self._most = max(self._most, self.held())
        return out

    def held(self) -> int:
        """Bytes in use."""
        # The interpreter's launches leave their arguments in cycles; compiled ones do not.
        gc.collect()
        return self._counted()

    def _counted(self) -> int:
        self._live = {key: one for key, one in self._live.items() if not one[0].expired()}
        return sum(size for _, size in self._live.values())

    def peak(self) -> int:
        """Most bytes in use since `restart`."""
        return self._most

    def restart(self) -> int:
        """Bytes in use, from which the next peak is counted."""
        self._most = self.held()
        return self._most


if __name__ == "__main__":
    sys.exit(main())
