"""Stability of latents over seeds, on the embeddings of networks of CIFAR-10 (arXiv 2606.12138).

Five seeds of an autoencoder for each network: which latents come again, what they reconstruct, what
the others span, and whether the latents of five seeds make a better dictionary than one seed.

    python -m lightsae.dictionaries.examples.cifar_stability --data cifar10-train-50k.tar.gz \
--networks FOLDER --out runs/cifar-stability
"""

import sys
import time
from pathlib import Path

from jsonargparse import auto_cli
from rich.console import Console

from lightsae.dictionaries.examples.cifar_stability.images import shards_of_networks
from lightsae.dictionaries.examples.cifar_stability.study import Sizes, run_study
from lightsae.dictionaries.examples.cifar_stability.summary import write_summary
from lightsae.errors import LightsaeError
from lightsae.files import expanded

_SIZES = Sizes()


def run(data: str, networks: str, out: str = "runs/cifar-stability", sizes: Sizes = _SIZES) -> None:
    """Run the study; the same command again goes on where it stopped.

    Args:
        data: Tar of images of 32 x 32 with a folder for each class.
        networks: Folder with one safetensors file for each network.
        out: Folder for shards, runs, tables and figures.
        sizes: How large everything is.
    """
    folder, console = Path(expanded(out)), Console(stderr=True)
    weights = {path.stem: path for path in sorted(Path(expanded(networks)).glob("*.safetensors"))}
    if not weights:
        raise LightsaeError(f"--networks {networks}: holds no safetensors")
    shards = shards_of_networks(Path(expanded(data)), weights, folder / "shards", sizes.images)
    studies, seconds = {}, {}
    for name, path in shards.items():
        began = time.monotonic()
        studies[name] = run_study(path, folder / name, sizes)
        seconds[name] = time.monotonic() - began
        console.print(f"{name}: {seconds[name]:.0f} s", highlight=False)
    print(write_summary(studies, folder))


if __name__ == "__main__":
    try:
        auto_cli(run, as_positional=False)
    except LightsaeError as error:
        sys.exit(f"cifar_stability: error: {error}")
