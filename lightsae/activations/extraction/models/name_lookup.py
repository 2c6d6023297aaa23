"""Names of layers, objects by dotted path, and the closest known name for a misspelled one."""

import difflib
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.module_names import plain_name


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


def layer_names(layers: str | float | Sequence[str | float]) -> list[str]:
    """Names of layers, as YAML and Python have them: the modules of a Sequential are numbered.

    Args:
        layers: One name or several, with or without the prefixes of compiled modules.

    Raises:
        LightsaeError: If one is a fraction, as YAML reads 1.10 without quotes; or there are none,
            or one is there twice.

    Example:
        >>> layer_names("blocks.1"), layer_names([0, "2"])
        (['blocks.1'], ['0', '2'])
    """
    given = [layers] if isinstance(layers, str | float | int) else list(layers)
    for layer in given:
        if isinstance(layer, float):
            raise LightsaeError(
                f"layer is the number {layer}: write a name that looks like one in quotes, '1.10'"
            )
    names = [plain_name(str(layer)) for layer in given]
    if not names or len(set(names)) < len(names):
        raise LightsaeError(f"layer is {names}, expected different names")
    return names


def closest(name: str, known: Iterable[str]) -> str:
    """The names most like one that does not exist, as the end of a message.

    Example:
        >>> closest("block.1", ["blocks.1", "head"])
        "; closest: 'blocks.1'"
    """
    names = difflib.get_close_matches(name, list(known), n=3, cutoff=0.3)
    return f"; closest: {', '.join(repr(item) for item in names)}" if names else ""
