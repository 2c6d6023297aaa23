"""Benchmarks import what lies beside them, as scripts do."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# What may be absent where kernels are measured, and what is absent where steps are measured too.
ABSENT = ("hypothesis", "jsonargparse", "xxhash", "h5py", "psutil", "rich", "matplotlib")
OF_NO_USE_TO_STEPS = (
    "jsonargparse", "typeshed_client", "psutil", "matplotlib", "sklearn", "datasets",
    "transformers", "open_clip", "braceexpand", "lightsae",
)  # fmt: skip


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module by the name that the scripts in benchmarks/ know it by."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int | None]]:
    """Run a script's main here: a process of its own would import torch for seconds."""

    def run(script: ModuleType, *words: object) -> int | None:
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, words)])
        found: int | None = script.main()
        return found

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def bare_environment(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that, on PYTHONPATH, hides what may be absent where kernels are measured."""
    return hiding(tmp_path_factory.mktemp("bare"), ABSENT)


@pytest.fixture(scope="session")
def gpu_machine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Likewise for steps: this package is a checkout there, which no installation tells of."""
    return hiding(tmp_path_factory.mktemp("gpu_machine"), OF_NO_USE_TO_STEPS)


def hiding(folder: Path, names: tuple[str, ...]) -> str:
    """A folder that, on PYTHONPATH, makes packages of these names look as if not installed."""
    (folder / "sitecustomize.py").write_text(
        f"""import importlib.metadata as metadata
from importlib.machinery import PathFinder
find, from_name = PathFinder.find_spec, metadata.Distribution.from_name
def find_spec(_, name, path=None, target=None):
    hidden = set({names}) - {{"lightsae"}}  # a checkout is imported all the same
    return None if name.partition(".")[0] in hidden else find(name, path, target)
def distribution(_, name):
    if name in {names}:
        raise metadata.PackageNotFoundError(name)
    return from_name(name)
PathFinder.find_spec = classmethod(find_spec)
metadata.Distribution.from_name = classmethod(distribution)
"""
    )
    return str(folder)
