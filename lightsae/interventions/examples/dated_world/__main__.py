"""`python -m lightsae.interventions.examples.dated_world [--out DIR] [--seed 0]`."""

import tempfile
from argparse import ArgumentParser
from pathlib import Path

from rich.console import Console

from lightsae.interventions.examples.dated_world.experiment import Experiment
from lightsae.interventions.examples.dated_world.summary import table_of_both
from lightsae.interventions.look_ahead.both_directions import conclusion
from lightsae.report.steering_report import write_steering_report
from lightsae.report.steering_summary import explained_choice

_WIDTH = 150


def main(arguments: list[str] | None = None, experiment: Experiment | None = None) -> None:
    """Run the experiment; print its table and conclusion, leave figures and pages.

    Args:
        arguments: Of the command; by default those of the process.
        experiment: Its sizes.
    """
    parser = ArgumentParser(
        prog="python -m lightsae.interventions.examples.dated_world",
        description="Look-ahead bias of a small Llama trained on a dated world, and steering "
        "against it in two directions.",
    )
    parser.add_argument("--out", type=Path, help="folder; what is there is not made again")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    out = given.out or Path(tempfile.mkdtemp(prefix="dated_world_"))
    results = (experiment or Experiment()).run(out, given.seed)
    for direction in results:
        write_steering_report(out / direction, Console(quiet=True))
    console = Console()
    wide = Console(width=max(console.width, _WIDTH))
    wide.print(table_of_both(results))
    told = explained_choice(results["amplify"])
    console.print(f"{told}\n", soft_wrap=True, highlight=False, markup=False)
    console.print(conclusion(results), soft_wrap=True, highlight=False, markup=False)
    console.print(f"\nFigures and pages: {out}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    main()
