"""`lightsae scaling`: how the loss of trained autoencoders scales."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from lightsae.extras import require
from lightsae.files import NameOption, expanded

if TYPE_CHECKING:
    from lightsae.planning.scaling import ScalingResult

_ABOUT = (
    "Fit scaling laws: loss (1 - R2) over the size of the dictionary and k with an irreducible "
    "term (arXiv 2406.04093), over operations, and what a budget of operations is best spent on. "
    "Takes sweeps, whose validation split counts, or run folders that `lightsae test` evaluated."
)


def scaling_command(words: Sequence[str]) -> "tuple[ScalingResult, Path | None]":
    """Run the command.

    Args:
        words: Words after `lightsae scaling`.

    Returns:
        The laws, and the folder that they were written to.

    Raises:
        argparse.ArgumentError: If the words are wrong.
        LightsaeError: What `measured_runs` and `fit_scaling` raise.
    """
    parser = ArgumentParser(prog="lightsae scaling", description=_ABOUT, exit_on_error=False)
    parser.add_argument(
        "results", type=str, nargs="+", help="Folders of sweeps, or evaluated run folders."
    )
    parser.add_argument(
        "--out", type=NameOption | None, default=None,
        help="Folder for scaling.json and scaling.png.",
    )  # fmt: skip
    parser.add_argument(
        "--flops", type=list[PositiveFloat] | None, default=None,
        help="Budgets in operations of training; by default those of the largest run and ten times "
        "as many.",
    )  # fmt: skip
    parser.add_argument("--draws", type=PositiveInt, default=500, help="Of the bootstrap.")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="Of the bootstrap.")
    given = parser.parse_args(list(words))
    require("scipy", extra="evaluation")
    if given.out is not None:
        require("matplotlib", extra="report")
    # What follows needs torch; the options and their help do not.
    from lightsae.planning.scaling import fit_scaling
    from lightsae.runs.scaling.measured_runs import measured_runs

    found = measured_runs([Path(expanded(each)) for each in given.results])
    result = fit_scaling(
        found.runs, d_in=found.d_in, decoded=found.decoded, flops=given.flops,
        draws=int(given.draws), seed=int(given.seed),
    )  # fmt: skip
    result = result._replace(
        left_out=(*found.left_out, *result.left_out), notes=(*found.notes, *result.notes)
    )
    out = None if given.out is None else Path(expanded(given.out))
    if out is not None:
        result.save(out)
    return result, out
