"""The command `lightsae extract`."""

from jsonargparse import auto_cli

from lightsae.activations.extract import extract
from lightsae.errors import LightsaeError


def run(args: list[str]) -> None:
    """Parse options (or a `--config` file) and extract.

    Args:
        args: The words after `extract`.

    Raises:
        argparse.ArgumentError: If an option is unknown or not of its type.
        LightsaeError: If anything else that was given is wrong.
    """
    try:
        auto_cli(
            extract, args=args, as_positional=False, prog="lightsae extract", exit_on_error=False
        )
    except UnicodeDecodeError as error:
        raise LightsaeError(f"a file among {' '.join(args)} is not text: {error}") from error
