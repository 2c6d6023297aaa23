"""`lightsae shards COMMAND ...`."""

from collections.abc import Callable, Sequence
from inspect import getdoc

from jsonargparse import ArgumentParser

from lightsae.activations.tools.convert import convert
from lightsae.activations.tools.info import info
from lightsae.activations.tools.merge import merge
from lightsae.activations.tools.shuffle import shuffle
from lightsae.activations.tools.split import split
from lightsae.activations.tools.verify import verify

# Of each command: the function, and the argument that is given without an option's name.
COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "info": (info, "folder"),
    "verify": (verify, "folder"),
    "shuffle": (shuffle, "folder"),
    "merge": (merge, "folders"),
    "split": (split, "folder"),
    "convert": (convert, "source"),
}

_HELP = {
    "folder": "A folder of shards.",
    "folders": "Two or more folders of shards.",
    "source": "File or folder of another program.",
}


def shards(words: Sequence[str]) -> None:
    """Run a command on folders of shards.

    Args:
        words: Words after `lightsae shards`.

    Raises:
        argparse.ArgumentError: If they are wrong.
        LightsaeError: What the command raises.
    """
    parser = ArgumentParser(
        prog="lightsae shards",
        description="Look at folders of activation shards, check them, rewrite them, make them.",
        exit_on_error=False,
    )
    commands = parser.add_subcommands(required=True, metavar="COMMAND")
    for name, (function, _) in COMMANDS.items():
        commands.add_subcommand(name, _parser(name), help=(getdoc(function) or "").split("\n")[0])
    given = parser.parse_args(list(words))
    name = given.subcommand
    COMMANDS[name][0](**vars(given[name]))


def _parser(name: str) -> ArgumentParser:
    """The options of a command."""
    function, main = COMMANDS[name]
    told = (getdoc(function) or "").partition("\n\nArgs:")[0]
    parser = ArgumentParser(description=told, exit_on_error=False)
    count = "+" if main == "folders" else None
    parser.add_argument(main, type=str, nargs=count, help=_HELP[main])
    parser.add_function_arguments(function, skip={main}, as_group=False)
    return parser
