import io
import pickle
import tarfile
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lightsae.errors import LightsaeError
from lightsae.torch_files import read_torch_file


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_tensors_are_read_in_either_format(tmp_path: Path, zipped: bool) -> None:
    saved = {"a": torch.randn(2, 3), "b": {"c": torch.arange(3)}}
    torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    found = read_torch_file(tmp_path / "a.pt")
    assert torch.equal(found["a"], saved["a"])  # type: ignore[arg-type]
    assert found["b"]["c"].tolist() == [0, 1, 2]


def _module(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path)


def _old_module(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=False)


def _beside_arguments(path: Path) -> None:
    torch.save({"model": torch.zeros(1), "arguments": Namespace(lr=1)}, path)


def _script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            content = pickle.dumps({})
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _text(path: Path) -> None:
    path.write_bytes(b"no tensors")


def _cut(path: Path) -> None:
    torch.save(torch.zeros(99), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("save", "says"),
    [
        (_module, r"^it holds objects: torch.nn.modules.linear.Linear$"),
        (_old_module, r"^it holds objects: torch.nn.modules.linear.Linear$"),
        (_beside_arguments, r"^it holds objects: argparse.Namespace$"),
        (_script, "^it is a program of TorchScript$"),
        (_tar, "^it is a tar file of a torch before 0.2: load it there and save it again$"),
        (_cut, "^RuntimeError: unexpected EOF"),
        (_text, "^it is not what torch.save writes of tensors$"),
        (lambda path: path.write_bytes(b""), "^EOFError"),
        (lambda path: None, "^FileNotFoundError"),
    ],
    ids=["module", "old module", "arguments", "script", "tar", "cut", "text", "empty", "none"],
)
def test_what_is_no_tensors_is_told_without_advice_to_run_it(
    tmp_path: Path, save: Callable[[Path], object], says: str
) -> None:
    save(tmp_path / "a.pt")
    with pytest.raises(LightsaeError, match=says) as caught:
        read_torch_file(tmp_path / "a.pt")
    assert "weights_only" not in str(caught.value)
