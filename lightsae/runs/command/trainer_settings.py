"""Settings of Lightning's trainer, its callbacks and its loggers."""

from enum import Enum
from typing import Any

from jsonargparse import Namespace

from lightsae.files import expanded

_IN_RUN_FOLDER = ("CSVLogger", "TensorBoardLogger")
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


def run_folder_of(settings: Namespace) -> str:
    """The run folder of a command.

    Args:
        settings: Its settings.

    Example:
        >>> run_folder_of(Namespace(run_dir=None, trainer=Namespace(default_root_dir=None)))
        'runs/default'
    """
    given = settings.get("run_dir")
    given = settings.trainer.get("default_root_dir") if given is None else given
    return expanded("runs/default" if given is None else given)


def log_to_run_folder(settings: Namespace) -> None:
    """Give CSVLogger and TensorBoardLogger the run folder where they have no `save_dir`.

    Args:
        settings: Parsed settings of a command, changed in place.

    Example:
        >>> csv = Namespace(class_path="CSVLogger", init_args=Namespace(save_dir=None))
        >>> log_to_run_folder(Namespace(run_dir="runs/a", trainer=Namespace(logger=csv)))
        >>> csv.init_args.save_dir
        'runs/a'
    """
    given = settings.trainer.get("logger")
    for logger in given if isinstance(given, list) else [given]:
        name = str(logger.get("class_path")) if isinstance(logger, Namespace) else ""
        if name.rpartition(".")[2] in _IN_RUN_FOLDER and logger.init_args.get("save_dir") is None:
            logger.init_args.save_dir = run_folder_of(settings)
