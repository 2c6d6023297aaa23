"""`lightsae shards COMMAND ...`."""

from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import getdoc
from typing import NamedTuple

from jsonargparse import ArgumentParser


class _Command(NamedTuple):
    """A function of the module of its name, imported when it is asked for.

    Attributes:
        main: The argument that is given without an option's name.
        summary: What it does, the first line of its docstring.
    """

    main: str
    summary: str


COMMANDS = {
    "info": _Command(
        "folder",
        "Tell what a folder of shards holds, how long its rows are and how well labels are mixed.",
    ),
    "verify": _Command(
        "folder", "Read every byte of a folder: hashes, NaN, and the statistics once more."
    ),
    "shuffle": _Command(
        "folder",
        "Write the rows of a folder to another one in a random order, every order equally likely.",
    ),
    "merge": _Command("folders", "Write the rows of several folders to one, after each other."),
    "split": _Command(
        "folder",
        "Divide the images of a folder at random; all rows of an image go to the same part.",
    ),
    "convert": _Command("source", "Make shards of activations that another program wrote."),
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
    asked = next((word for word in words if word in COMMANDS), None)
    for name, command in COMMANDS.items():
        options = _parser(name) if name == asked else ArgumentParser(exit_on_error=False)
        commands.add_subcommand(name, options, help=command.summary)
    given = parser.parse_args(list(words))
    name = given.subcommand
    _function(name)(**vars(given[name]))


def _function(name: str) -> Callable[..., None]:
    """What a command runs."""
    function: Callable[..., None] = getattr(
        import_module(f"lightsae.activations.tools.{name}"), name
    )
    return function


def _parser(name: str) -> ArgumentParser:
    """The options of a command."""
    function, main = _function(name), COMMANDS[name].main
    told = (getdoc(function) or "").partition("\n\nArgs:")[0]
    parser = ArgumentParser(description=told, exit_on_error=False)
    count = "+" if main == "folders" else None
    parser.add_argument(main, type=str, nargs=count, help=_HELP[main])
    parser.add_function_arguments(function, skip={main}, as_group=False)
    return parser
