"""Folders among the settings of Lightning's trainer, its callbacks and its loggers."""

from typing import Any

from jsonargparse import Namespace

from lightsae.files import expanded

_NAMES = {"default_root_dir", "dirpath", "save_dir", "root_dir", "log_dir"}


def expand_folders(settings: Any) -> None:
    """Put home and variables in their place, as `expanded` does; Lightning knows only some.

    Args:
        settings: Parsed settings, changed in place.

    Example:
        >>> trainer = Namespace(callbacks=[Namespace(dirpath="~/best")])
        >>> expand_folders(trainer)
        >>> trainer.callbacks[0].dirpath.startswith("~")
        False
    """
    if isinstance(settings, Namespace):
        settings = vars(settings)
    if isinstance(settings, list):
        for value in settings:
            expand_folders(value)
    elif isinstance(settings, dict):
        for name, value in settings.items():
            if name in _NAMES and value is not None:
                settings[name] = expanded(value)
            else:
                expand_folders(value)
