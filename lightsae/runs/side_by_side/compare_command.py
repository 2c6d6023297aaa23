"""`lightsae compare`: runs beside a baseline, and the stability of the seeds of each setting."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from lightsae.extras import require
from lightsae.files import NameOption, expanded

if TYPE_CHECKING:
    from lightsae.runs.side_by_side.compared import Compared

_ABOUT = (
    "Compare runs seed by seed. Runs that differ in nothing but the seed are one setting. Of "
    "several settings the first run's is the baseline, beside which `lightsae test` must have "
    "evaluated the others. Of a setting with two seeds or more, stability is measured: which "
    "latents come again from another seed, and what they reconstruct."
)


def compare_command(words: Sequence[str]) -> "Compared":
    """Run the command.

    Args:
        words: Words after `lightsae compare`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What `compare_runs` raises.
    """
    parser = ArgumentParser(prog="lightsae compare", description=_ABOUT, exit_on_error=False)
    parser.add_argument(
        "runs", type=str, nargs="+",
        help="Run folders, that of the baseline first; a sweep stands for its members.",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=NameOption | None, default=None,
        help="Folder for comparison.json, stability.json and the figures.",
    )  # fmt: skip
    parser.add_argument(
        "--split", type=str, default="test", choices=["train", "validation", "test", "all"],
        help="Rows that stability is measured on.",
    )  # fmt: skip
    parser.add_argument("--rows", type=PositiveInt, default=32768, help="So many at most.")
    parser.add_argument(
        "--thresholds", type=list[float], default=[0.5, 0.6, 0.7, 0.8, 0.9],
        help="Cosines from which on two latents are the same.",
    )  # fmt: skip
    given = parser.parse_args(list(words))
    if given.out is not None:
        require("matplotlib", extra="report")  # before work is lost
    # What follows needs torch; the options and their help do not.
    from lightsae.runs.log_filter import quieten
    from lightsae.runs.side_by_side.compare_runs import compare_runs

    quieten()
    return compare_runs(
        [Path(expanded(run)) for run in given.runs],
        None if given.out is None else Path(expanded(given.out)),
        split=given.split, rows=int(given.rows), thresholds=given.thresholds,
    )  # fmt: skip
