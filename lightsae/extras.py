"""Optional dependencies, imported where they are used."""

from importlib import import_module
from types import ModuleType

from lightsae.errors import LightsaeError


class MissingExtraError(LightsaeError, ImportError):
    """An optional dependency is not installed."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional dependency or say which extra brings it.

    Args:
        module: Dotted name of the module.
        extra: The extra of this package that installs it.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: If the module is not installed.

    Example:
        >>> require("no_such", extra="vision")
        Traceback (most recent call last):
        ...
        lightsae.extras.MissingExtraError: no_such is not installed: pip install 'lightsae[vision]'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"{module.partition('.')[0]} is not installed: pip install 'lightsae[{extra}]'"
        ) from error
