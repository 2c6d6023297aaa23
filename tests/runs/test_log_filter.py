"""What a command prints of warnings."""

import warnings
from pathlib import Path

import lightning

import lightsae.training.schedule
from lightsae.runs.log_filter import quieten


def printed(file: str) -> str:
    return warnings.formatwarning("WarmupDecay: too short", UserWarning, file, 1, "source")


def test_a_warning_of_this_package_is_one_line_without_a_place_in_it() -> None:
    quieten()
    quieten()
    assert printed(lightsae.training.schedule.__file__) == "warning: WarmupDecay: too short\n"


def test_a_warning_of_another_keeps_its_place() -> None:
    quieten()
    for file in (str(Path(lightning.__file__)), "own_callback.py"):
        assert printed(file).startswith(f"{file}:1: ")
