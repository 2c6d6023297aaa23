"""The other libraries, where they are installed."""

import os
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest


def peer(name: str) -> Any:
    """Import a library, or skip the file that asks for it."""
    if find_spec(name.partition(".")[0]) is None:
        pytest.skip(
            f"{name} is in .venv/interop, where make test runs this", allow_module_level=True
        )
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # its decoder for GPUs has no other path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(name)
