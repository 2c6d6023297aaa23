"""saev's loader on its own format: for each line read from stdin an epoch, and its number of rows.

    python benchmarks/peers/saev_loader.py FOLDER --rows 204800 --d_in 1024 --batch 4096

Its `Dataset` behind a torch DataLoader, shuffled, with two workers, as saev trains with it, no
normalisation. Runs in saev's environment (see setup.py); writes the files if the folder is new.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from saev.activations import Dataset
from saev.config import DataLoad
from torch.utils.data import DataLoader

PATCHES, LAYER = 256, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    for name in ("rows", "d_in", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    if not options.folder.exists():
        write(options.folder, options.rows // PATCHES, options.d_in)
    settings = {"scale_mean": False, "scale_norm": False, "layer": LAYER}
    dataset = Dataset(DataLoad(shard_root=str(options.folder), **settings))
    loader = DataLoader(dataset, batch_size=options.batch, num_workers=2, shuffle=True)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(sum(len(batch["act"]) for batch in loader), flush=True)


def write(folder: Path, images: int, d_in: int) -> None:
    """One shard of float32 `[images, layers, class token and patches, d_in]`, and its metadata."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    with (folder / "acts000000.bin").open("wb") as file:
        for _ in range(images):
            file.write(generator.standard_normal((PATCHES + 1, d_in), np.float32).tobytes())
    metadata = {
        "vit_family": "clip", "vit_ckpt": "none", "layers": [LAYER], "n_patches_per_img": PATCHES,
        "cls_token": True, "d_vit": d_in, "seed": 0, "n_imgs": images,
        "n_patches_per_shard": images * (PATCHES + 1), "data": "none",
    }  # fmt: skip
    (folder / "metadata.json").write_text(json.dumps(metadata))


if __name__ == "__main__":
    main()
