"""`python -m lightsae.interventions.examples.whisper_digits --data sounds-8khz.npz`."""

import argparse
import sys
from pathlib import Path

from lightsae.errors import LightsaeError
from lightsae.interventions.examples.whisper_digits.example import run


def main(words: list[str] | None = None) -> int:
    """Run the example.

    Args:
        words: Of the command line.

    Returns:
        Status of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lightsae.interventions.examples.whisper_digits",
        description="Train a small Whisper on spoken digits and steer it against the digits that "
        "it hears in recordings without speech.",
    )
    parser.add_argument("--data", type=Path, required=True, help="npz file of the recordings")
    parser.add_argument("--out", type=Path, default=Path("runs/whisper-digits"), help="folder")
    parser.add_argument("--seed", type=int, default=0, help="of splits, weights and draws")
    given = parser.parse_args(words)
    try:
        run(given.data, given.out, seed=given.seed)
    except LightsaeError as error:
        print(f"whisper_digits: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
