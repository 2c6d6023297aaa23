"""Public names of a package that are imported when they are first asked for."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package, so that importing a part of it is cheap.

    No module of the package may have one of the names: once imported, it would take its place.

    Args:
        package: Its `__name__`.
        homes: Of each name the module that defines it, in full or from the package on, such as
            ".shards.manifest".

    Returns:
        The two functions of PEP 562.

    Example:
        >>> find, names = lazy_names("lightsae", {"LightsaeError": ".errors"})
        >>> find("LightsaeError").__name__, "LightsaeError" in names()
        ('LightsaeError', True)
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(homes[name], package), name)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return find, names
