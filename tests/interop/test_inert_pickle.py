"""Files that name classes, read without calling any."""

import collections
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightsae.errors import LightsaeError
from lightsae.interop.files.inert_pickle import Name, Record, read_inert


class _Config:
    """One that this process knows and a reader must not build."""

    built = 0

    def __init__(self, **settings: Any) -> None:
        type(self).built += 1
        self.__dict__.update(settings)

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise AssertionError("called")


class _Runs:
    def __init__(self, callee: Any, *arguments: Any) -> None:
        self.made_of = callee, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self.made_of


def test_tensors_are_tensors_and_objects_are_records(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3).mT
    saved = {
        "cfg": _Config(k=3, names=("a", None, 2.5), dtype=torch.float16),
        "state_dict": collections.OrderedDict(W=weight, b=nn.Parameter(torch.ones(2))),
        "more": [{1, 2}, 2**80, -1, True],
    }
    torch.save(saved, tmp_path / "a.pt")
    found = read_inert(tmp_path / "a.pt")
    config = found["cfg"]
    assert isinstance(config, Record)
    assert str(config.made_by) == f"{__name__}._Config"
    assert config.state["k"] == 3 and config.state["names"] == ("a", None, 2.5)
    assert config.state["dtype"] == Name("torch", "float16")
    assert torch.equal(found["state_dict"]["W"], weight)
    assert torch.equal(found["state_dict"]["b"], torch.ones(2))
    assert found["more"][1:] == [2**80, -1, True]
    assert _Config.built == 1


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool],
)
def test_every_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.tensor([[1, 0], [3, 2]]).to(dtype)
    torch.save({"a": tensor[:, 1]}, tmp_path / "a.pt")
    assert torch.equal(read_inert(tmp_path / "a.pt")["a"], tensor[:, 1])


def test_tensors_of_one_storage_share_it(tmp_path: Path) -> None:
    whole = torch.randn(4, 4)
    torch.save([whole, whole[1]], tmp_path / "a.pt")
    one, other = read_inert(tmp_path / "a.pt")
    assert one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_call_of_a_malicious_file_does_not_happen(protocol: int, tmp_path: Path) -> None:
    mark, other = tmp_path / "mark", tmp_path / "other"
    saved = [
        _Runs(os.mkdir, str(mark)), _Runs(exec, f"import os; os.mkdir({str(other)!r})"),
        _Runs(getattr, _Runs(__import__, "os"), "system"),
    ]  # fmt: skip
    torch.save(saved, tmp_path / "a.pt", pickle_protocol=protocol)
    found = read_inert(tmp_path / "a.pt")
    assert [str(record.made_by.name) for record in found] == ["mkdir", "exec", "getattr"]
    assert not mark.exists() and not other.exists()
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert mark.exists() and other.exists()  # it would have


def test_no_module_is_imported(tmp_path: Path) -> None:
    program = b"\x80\x02c" + b"this\ns\n" + b"."
    _write(tmp_path / "a.pt", program)
    assert read_inert(tmp_path / "a.pt") == Name("this", "s")
    import sys

    assert "this" not in sys.modules


def _write(path: Path, program: bytes, **parts: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in parts.items():
            archive.writestr(f"archive/data/{name}", content)


def _tensor(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """The program of a tensor on the storage `s` of two float32."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: Any) -> Any:
            storage = torch.FloatStorage
            return ("storage", storage, "s", "cpu", 2) if isinstance(thing, Storage) else None

    import io

    rebuild = torch._utils._rebuild_tensor_v2  # type: ignore[attr-defined]
    arguments = (Storage(), offset, shape, strides, False, collections.OrderedDict())
    content = io.BytesIO()
    Pickler(content, 2).dump(_Runs(rebuild, *arguments))
    return content.getvalue()


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((3,), (1,), 0), ((2,), (1,), 1), ((2,), (9,), 0), ((2**40,), (0,), 0), ((2,), (-1,), 1),
     ((-2,), (1,), 0), ((2,), (1, 1), 0)],
)  # fmt: skip
def test_a_tensor_that_leaves_its_storage_is_refused(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, tmp_path: Path
) -> None:
    _write(tmp_path / "a.pt", _tensor((2,), (1,)), s=bytes(8))
    assert read_inert(tmp_path / "a.pt").shape == (2,)
    _write(tmp_path / "a.pt", _tensor(shape, strides, offset), s=bytes(8))
    with pytest.raises(LightsaeError, match=r"is no part of 2 numbers"):
        read_inert(tmp_path / "a.pt")


@pytest.mark.parametrize("size", [0, 4, 7, 12])
def test_a_storage_of_another_size_is_refused(size: int, tmp_path: Path) -> None:
    _write(tmp_path / "a.pt", _tensor((2,), (1,)), s=bytes(size))
    with pytest.raises(LightsaeError, match=r"a\.pt cannot be read"):
        read_inert(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02", b"\x80\x02.", b"\x80\x02R.", b"\x80\x02K\x01h\x05.", b"\x80\x02t.",
        b"\x80\x02K\x01K\x02a.", b"\x80\x02}](K\x01s.", b"\x80\x02K\x01\x81.", b"\x80\x02\x82\x01.",
        b"", b"\xff\xff",
    ],
)  # fmt: skip
def test_programs_that_make_no_sense_are_one_line(program: bytes, tmp_path: Path) -> None:
    _write(tmp_path / "a.pt", program)
    with pytest.raises(LightsaeError) as caught:
        read_inert(tmp_path / "a.pt")
    assert str(caught.value).startswith(f"{tmp_path / 'a.pt'} ")
    assert "\n" not in str(caught.value)


def test_a_key_that_would_take_for_ever_to_hash_is_refused(tmp_path: Path) -> None:
    """Of 60 nested pairs each of which holds the last twice, 2^60 leaves are hashed."""
    nested = b"\x80\x02}N" + b"2\x86" * 60 + b"K\x01s."
    _write(tmp_path / "a.pt", nested)
    with pytest.raises(LightsaeError, match="has a key of type tuple"):
        read_inert(tmp_path / "a.pt")


def test_files_before_zip_are_refused(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(LightsaeError, match=r"not a zip file of torch\.save: load it"):
        read_inert(tmp_path / "a.pt")
    with pytest.raises(LightsaeError, match=r"no\.pt cannot be read: No such file"):
        read_inert(tmp_path / "no.pt")
