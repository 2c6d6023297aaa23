"""The command `lightsae demo`."""

from pathlib import Path

from lightsae.errors import LightsaeError
from lightsae.files import NameOption, expanded


def demo(run_dir: NameOption = "runs/demo", seeds: int = 5) -> None:
    """Digits end to end: extract, fit baseline, Reg 1 and Reg 2, compare them on the test split.

    Trains a small ViT on scikit-learn's digits and writes its activations to HDF5 shards; chooses
    each regularizer's lambda on the validation split; fits all three over paired seeds; prints the
    table and draws the images that activate latents most.

    Args:
        run_dir: Folder for shards, trained autoencoders, results and pictures.
        seeds: Paired seeds of the comparison.
    """
    if seeds < 1:
        raise LightsaeError(f"seeds must be at least 1, got {seeds}")
    # What follows needs torch and Lightning; the options and their help do not.
    from lightsae.demo.comparison import compare

    compare(Path(expanded(run_dir)), seeds)
