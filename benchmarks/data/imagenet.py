"""What an extraction over ImageNet takes: bytes, and hours by the rates of this machine.

    python benchmarks/data/imagenet.py

Measured are the rate at which one process reads and prepares JPEGs of ImageNet's usual size (made
here: 500 x 375 pixels, about 110 kB, to 224 x 224) and the rate at which shards are written, hashed
and synced. Sizes are computed, and so are hours: images over rate, bytes over rate. The model's own
hours depend on the GPU and are none of these; an extraction takes as long as the slowest of the
three, which go on side by side (writing beside the workers).
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from lightsae.activations import Manifest, ShardWriter
from lightsae.activations.extraction.images.image_set import FolderImages
from lightsae.activations.extraction.images.preparation import Transform
from lightsae.activations.shards.disk_budget import row_bytes

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import RESULTS, write_rows

IMAGES = 1_281_167
# ViT-L/14 at 224 pixels.
D_IN, PATCHES = 1024, 256
TOKENS = {"class": 1, "patch, 16 drawn": 16, "patch": PATCHES}
SETTINGS = {
    "input_size": (3, 224, 224),
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "crop_pct": 0.875,
    "interpolation": "bicubic",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--processes", type=int, default=16, help="that read images, default 16")
    parser.add_argument("--scratch", type=Path, help="folder for images and shards")
    parser.add_argument("--out", type=Path, default=RESULTS / "imagenet.csv", help="CSV file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch) / "images"
        images = photographs(folder, 64)
        size = sum(path.stat().st_size for path in folder.iterdir()) / len(images) / 1e3
        rates = [
            (prepared_per_second(images), written_per_second(Path(scratch) / str(number)))
            for number in range(options.rounds + 1)
        ][1:]
    measured = {
        ("one process reads and prepares", "images/s"): [rate for rate, _ in rates],
        ("shards are written", "GB/s"): [rate / 1e9 for _, rate in rates],
    }
    write_rows(options.out, rows(measured, size))
    prepared, written = (statistics.median(rate) for rate in zip(*rates, strict=True))
    print(f"one process prepares {prepared:.0f} images/s; shards take {written / 1e9:.2f} GB/s")
    Console().print(table(prepared * options.processes, written, options.processes))


def photographs(folder: Path, count: int) -> FolderImages:
    """JPEGs of the size of a photograph: smooth colours with grain."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        grain = generator.normal(0, 9, (375, 500, 1))
        pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=92)
    return FolderImages(folder, Transform(SETTINGS))


def prepared_per_second(images: FolderImages) -> float:
    start = time.perf_counter()
    for number in range(len(images)):
        images.load(number)
    return len(images) / (time.perf_counter() - start)


def written_per_second(folder: Path) -> float:
    """Bytes of rows, through to the disk."""
    activations = torch.randn(4096, D_IN)
    start = time.perf_counter()
    with ShardWriter(folder, Manifest(d_in=D_IN, dtype="float16", has_labels=True)) as writer:
        for part in range(32):
            index = torch.arange(4096) + 4096 * part
            writer.write(activations, index, index % 7, index % 1000)
    return 32 * 4096 * D_IN * 2 / (time.perf_counter() - start)


def rows(measured: dict, size: float) -> list[dict]:
    shared = {
        "benchmark": "imagenet", "implementation": "lightsae", "device": "cpu", "threads": 1,
        "dtype": "float16", "sizes": f"JPEG 500x375 of {size:.0f} kB to 224, d_in={D_IN}",
    }  # fmt: skip
    return [
        {**shared, "metric": metric, "unit": unit, "median": f"{statistics.median(values):.4g}",
         "low": f"{min(values):.4g}", "high": f"{max(values):.4g}", "samples": len(values)}
        for (metric, unit), values in measured.items()
    ]  # fmt: skip


def table(prepared: float, written: float, processes: int) -> Table:
    title = f"ImageNet, {IMAGES:,} images, {D_IN} numbers in float16 per token"
    found = Table(title=title)
    for name in ("tokens", "rows", "on disk", f"hours, {processes} read", "hours to write"):
        found.add_column(name, justify="left" if name == "tokens" else "right")
    for name, count in TOKENS.items():
        size = IMAGES * count * row_bytes(D_IN, "float16", True)
        hours = f"{IMAGES / prepared / 3600:.2f}", f"{size / written / 3600:.2f}"
        found.add_row(name, f"{IMAGES * count:,}", f"{size / 1e9:.1f} GB", *hours)
    return found


if __name__ == "__main__":
    main()
