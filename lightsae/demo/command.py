"""The command `lightsae demo`."""

from pathlib import Path

from lightsae.errors import LightsaeError
from lightsae.files import NameOption, expanded


def demo(run_dir: NameOption = "runs/demo", seeds: int = 5) -> None:
    """Digits end to end: `lightsae extract`, `sweep`, `test` and `report` in a row.

    Makes shards of a small ViT on scikit-learn's digits and of a second network, whose embeddings
    monosemanticity is measured in; trains a grid of baseline, Reg 1 and Reg 2; chooses each
    regularizer's lambda on the validation split; evaluates on the test split; writes a page. The
    command of each step is shown. Given again, it goes on where it stopped.

    Args:
        run_dir: Folder for everything that is made.
        seeds: Seeds of each autoencoder, which pair it with the baseline.
    """
    if seeds < 1:
        raise LightsaeError(f"seeds must be at least 1, got {seeds}")
    # What follows needs torch and Lightning; the options and their help do not.
    from lightsae.demo.steps import run_steps

    run_steps(Path(expanded(run_dir)), seeds)
