"""Classes of the user's own, in files of the current folder, named by their class paths."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightsae.activations import Manifest
from lightsae.cli import main

from ..training.helpers import environment, write_config

OWN = """
import torch
from lightsae.sae.regularizers import Regularizer
from tests.activations.stand_ins import Noise, TinyNet


class Net(TinyNet):
    pass


class Images(Noise):
    pass


class Penalty(Regularizer):
    def penalty(self, a, indices, batch_active):
        return a.square().mean()


class Slow(torch.optim.SGD):
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module that lies in the current folder alone."""
    (tmp_path / "own_classes.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_classes", raising=False)
    return "own_classes"


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_extract_takes_a_model_and_images_of_the_current_folder(own: str, workers: int) -> None:
    words = ["--model.module", f"{own}.Net", "--data.dataset", f"{own}.Images", "--out", "out"]
    words += ["--layer", "tokens", "--workers", str(workers)]
    assert main(["extract", *words]) == 0
    assert Manifest.load(Path("out")).rows == 40


def test_fit_takes_a_regularizer_and_an_optimizer_of_the_current_folder(
    own: str, shards: Path, tmp_path: Path
) -> None:
    config = write_config(
        tmp_path / "config.yaml",
        shards,
        trainer__max_epochs=1,
        model__init_args__regularizer={"class_path": f"{own}.Penalty", "init_args": {"weight": 1}},
        model__init_args__optimizer={"class_path": f"{own}.Slow", "init_args": {"lr": 0.01}},
    )
    assert main(["fit", "--config", str(config), "--run_dir", "run"]) == 0


def test_python_may_be_told_to_leave_the_current_folder_out(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "flags", _Safe())
    assert main(["extract", "--model.module", f"{own}.Net", "--layer", "a", "--out", "out",
                 "--data.dataset", f"{own}.Images"]) == 1  # fmt: skip


class _Safe:
    """The flags of `python -P`."""

    safe_path = True
    _others = sys.flags

    def __getattr__(self, name: str) -> Any:
        return getattr(self._others, name)


def test_a_file_of_the_current_folder_is_taken_for_no_installed_package(
    tmp_path: Path, shards: Path
) -> None:
    for name in ("h5py.py", "rich.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('run')")
    for words in (["shards", "info", str(shards)], ["extract", "--help"]):
        script = f"import sys; sys.path.pop(0); from lightsae.cli import main; main({words})"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True,
            env=environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
