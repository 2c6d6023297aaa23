"""Benchmarks import what lies beside them, as scripts do."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ABSENT = ("hypothesis", "jsonargparse", "xxhash", "h5py", "psutil", "rich", "matplotlib")


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module by the name that the scripts in benchmarks/ know it by."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture(scope="session")
def bare_environment(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that, on PYTHONPATH, hides what may be absent where kernels are measured."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(
        f"""from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(_, name, path=None, target=None):
    return None if name.partition(".")[0] in {ABSENT} else find(name, path, target)
PathFinder.find_spec = classmethod(find_spec)
"""
    )
    return str(folder)
