"""`python -m lightsae.interventions.examples.dated_world [--out DIR] [--seed 0]`."""

import tempfile
from argparse import ArgumentParser
from pathlib import Path

from rich.console import Console

from lightsae.interventions.examples.dated_world.experiment import Experiment
from lightsae.interventions.look_ahead.both_directions import conclusion


def main() -> None:
    """Run the experiment and print its table and conclusion."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder; what is there is not made again")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp(prefix="dated_world_"))
    results = Experiment().run(out, given.seed)
    console = Console()
    for direction, result in results.items():
        for point in result.points:
            if point.split == "test":
                print(direction, point.arm, point.cell, f"damage {point.damage:.2f}", {n: f"{e.value:.3f} [{e.low:.3f} {e.high:.3f}]" for n, e in point.metrics.items()})
        for point in result.points:
            if point.split == "choice" and (point.count == 0 or point.arm == "ranked latents"):
                print(direction, point.arm, point.cell, f"damage {point.damage:.2f}", {n: f"{e.value:.3f}" for n, e in point.metrics.items()})
    console.print(conclusion(results), soft_wrap=True)


if __name__ == "__main__":
    main()
