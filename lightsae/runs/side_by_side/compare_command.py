"""`lightsae compare`: runs beside a baseline, from what `lightsae test` wrote."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console

from lightsae.files import expanded

_ABOUT = (
    "Compare runs with a baseline, seed by seed. Runs that differ in nothing but the seed are one "
    "setting; the first run's is the baseline. `lightsae test` must have written evaluation.json "
    "in each."
)


def compare_runs(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Words after `lightsae compare`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What `compare` and `EvaluationResult.load` raise.
    """
    parser = ArgumentParser(prog="lightsae compare", description=_ABOUT, exit_on_error=False)
    parser.add_argument("baseline", type=str, help="Run folder of the baseline.")
    parser.add_argument("runs", type=str, nargs="+", help="Other run folders, of any seed.")
    given = parser.parse_args(list(words))
    # What follows needs torch; the options and their help do not.
    from lightsae.evaluation.comparison.compare import compare
    from lightsae.evaluation.comparison.comparison_table import comparison_table
    from lightsae.evaluation.comparison.evaluated_run import read_evaluated

    console = Console(soft_wrap=False)
    folders = [expanded(each) for each in (given.baseline, *given.runs)]
    for comparison in compare([read_evaluated(folder) for folder in folders]):
        console.print(comparison_table(comparison))
