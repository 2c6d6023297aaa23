"""Objects by dotted path, and the closest known name for a misspelled one."""

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from lightsae.errors import LightsaeError
from lightsae.messages import reason


def import_object(path: str, argument: str) -> Any:
    """Import a class or function by its dotted path.

    Args:
        path: Such as "package.module.Class".
        argument: Name of the option, for messages.

    Returns:
        The object.

    Raises:
        LightsaeError: If there is no such object.

    Example:
        >>> import_object("torch.nn.Identity", "model.module").__name__
        'Identity'
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except Exception as error:
        raise LightsaeError(f"{argument}: cannot import {path!r}: {reason(error)}") from error


def closest(name: str, known: Iterable[str]) -> str:
    """The names most like one that does not exist, as the end of a message.

    Example:
        >>> closest("block.1", ["blocks.1", "head"])
        "; closest: 'blocks.1'"
    """
    names = difflib.get_close_matches(name, list(known), n=3, cutoff=0.3)
    return f"; closest: {', '.join(repr(item) for item in names)}" if names else ""
