"""The command `lightsae extract`."""

from argparse import ArgumentError

from jsonargparse import auto_cli

from lightsae.activations.extract import extract
from lightsae.errors import LightsaeError


def run(args: list[str]) -> None:
    """Parse options (or a `--config` file) and extract.

    Args:
        args: The words after `extract`.

    Raises:
        LightsaeError: If anything given is wrong.
    """
    try:
        auto_cli(
            extract, args=args, as_positional=False, prog="lightsae extract", exit_on_error=False
        )
    except ArgumentError as error:
        raise LightsaeError(f"{error} (lightsae extract --help lists the options)") from error
