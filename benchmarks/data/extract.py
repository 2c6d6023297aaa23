"""Images per second of `lightsae extract`, beside a bare torch loop over the same model and images.

    python benchmarks/data/extract.py --images FOLDER --weights resnet20-cifar10.safetensors

The folder holds images in one folder per class, the weights fit ResNet20 of cifar_resnets.py. Both
read, decode and normalise every image and run the model in batches of 64; the loop keeps the last
batch only, the extraction writes float16 shards with hashes. Rounds take turns.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torchvision.transforms import v2

from lightsae.activations.extraction.extraction_job import Extraction
from lightsae.activations.extraction.images.image_set import load_images
from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.extraction.models import LayerTap, ModelOptions, load_model

sys.path.insert(0, str(Path(__file__).parents[1]))
from cifar_resnets import ResNet20
from common import RESULTS, write_rows

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BATCH = 64


def main() -> int:
    options = parse()
    torch.set_num_threads(options.threads)
    paths = sorted(options.images.glob("*/*"))
    cases: dict[str, Callable[[], None]] = {
        "bare loop": lambda: bare_loop(paths, options.weights),
        "lightsae": lambda: extraction(options),
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(options.rounds + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if number:
                rates[name].append(len(paths) / (time.perf_counter() - start))
    pairs = zip(rates["lightsae"], rates["bare loop"], strict=True)
    results = {
        ("bare loop", "rate", "images/s"): rates["bare loop"],
        ("lightsae", "rate", "images/s"): rates["lightsae"],
        ("lightsae", "rate over the bare loop's", "x"): [ours / bare for ours, bare in pairs],
    }
    write_rows(options.out, rows(results, len(paths), options))
    Console().print(table(results, len(paths)))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="a folder per class")
    parser.add_argument("--weights", type=Path, required=True, help="safetensors")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--threads", type=int, default=2, help="default 2")
    parser.add_argument("--out", type=Path, default=RESULTS / "extract.csv", help="CSV file")
    options = parser.parse_args()
    if not any(options.images.glob("*/*")):
        parser.error(f"--images {options.images}: no image in a folder of it")
    return options


@torch.inference_mode()
def bare_loop(paths: list[Path], weights: Path) -> None:
    """What one would write by hand."""
    model = ResNet20()
    model.load_state_dict(load_file(weights))
    model.eval()
    model.linear = torch.nn.Identity()
    normalise = v2.Compose(
        [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    for start in range(0, len(paths), BATCH):
        images = [
            normalise(Image.open(path).convert("RGB")) for path in paths[start : start + BATCH]
        ]
        model(torch.stack(images)).half()


def extraction(options: argparse.Namespace) -> None:
    """The whole command, from the options to a complete folder."""
    out = Path(tempfile.mkdtemp())
    try:
        model = load_model(
            ModelOptions(module="cifar_resnets.ResNet20", weights=str(options.weights))
        )
        data = DataOptions(folder=str(options.images), size=32, mean=MEAN, std=STD)
        images, preparation = load_images(data, model)
        Extraction(
            LayerTap(model, "pool"), images, out / "shards", "resnet20", "all", batch_size=BATCH,
            preparation=preparation, device="cpu", show_progress=False,
        ).run()  # fmt: skip
    finally:
        shutil.rmtree(out)


def rows(results: dict, count: int, options: argparse.Namespace) -> list[dict]:
    shared = {"benchmark": "extract", "sizes": f"images={count} batch={BATCH} d_in=64"}
    shared |= {"dtype": "float16", "device": "cpu", "threads": options.threads}
    return [
        {**shared, "implementation": name, "metric": metric, "unit": unit,
         "median": f"{statistics.median(values):.4g}", "low": f"{min(values):.4g}",
         "high": f"{max(values):.4g}", "samples": len(values)}
        for (name, metric, unit), values in results.items()
    ]  # fmt: skip


def table(results: dict, count: int) -> Table:
    found = Table(title=f"{count} images through a ResNet-20; wanted: at least 0.9x the bare loop")
    for name in ("", "metric", "unit", "median", "low", "high"):
        found.add_column(name)
    for names, values in results.items():
        figures = [f"{pick(values):.3g}" for pick in (statistics.median, min, max)]
        found.add_row(*names, *figures)
    return found


if __name__ == "__main__":
    sys.exit(main())
