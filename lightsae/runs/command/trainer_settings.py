"""Settings of Lightning's trainer, its callbacks and its loggers as plain values."""

from enum import Enum
from typing import Any

from jsonargparse import Namespace

from lightsae.files import expanded

_FOLDERS = {"default_root_dir", "dirpath", "save_dir", "root_dir", "log_dir"}


def make_plain(settings: Any) -> None:
    """Put home and variables in their place in folders, and text in that of enumerations.

    Lightning expands only some of its folders, and cannot write settings with an enumeration,
    which the defaults of some of its callbacks are.

    Args:
        settings: Parsed settings, changed in place.

    Example:
        >>> trainer = Namespace(callbacks=[Namespace(dirpath="~/best")])
        >>> make_plain(trainer)
        >>> trainer.callbacks[0].dirpath.startswith("~")
        False
    """
    settings = vars(settings) if isinstance(settings, Namespace) else settings
    if not isinstance(settings, dict | list):
        return
    for name, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
        if isinstance(value, Enum) and isinstance(value, str):
            settings[name] = value.value
        elif name in _FOLDERS and value is not None:
            settings[name] = expanded(value)
        else:
            make_plain(value)
