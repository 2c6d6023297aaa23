"""The command line: `lightsae`, `python -m lightsae`, `lightning fit`."""

from lightsae.cli.program import lightning_main, main

__all__ = ["lightning_main", "main"]
