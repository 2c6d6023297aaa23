"""Reading files of strangers."""

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lightsae.errors import LightsaeError
from lightsae.interop.files import safe_files
from lightsae.interop.files.safe_files import (
    file_in,
    files_in,
    read_json,
    read_npz,
    read_safetensors,
    read_torch,
)


def test_tensors_of_a_safetensors_file(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "a.safetensors")
    found = read_safetensors(tmp_path / "a.safetensors")
    assert found.keys() == tensors.keys()
    assert torch.equal(found["a"], tensors["a"]) and found["b"].dtype == torch.bfloat16


def test_a_header_of_2_gb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2 * 2**30) + b"{" * 64)
    with pytest.raises(LightsaeError, match="its header claims 2147483648 of 72 bytes"):
        read_safetensors(path)


def test_a_long_header_is_refused_even_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_files, "MAX_HEADER_BYTES", 40)
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(LightsaeError, match="is no whole safetensors file"):
        read_safetensors(tmp_path / "a.safetensors")


def test_json_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cfg.json").write_text(json.dumps({"k": 3}))
    assert read_json(tmp_path / "cfg.json") == {"k": 3}
    monkeypatch.setattr(safe_files, "MAX_JSON_BYTES", 7)
    with pytest.raises(LightsaeError, match="is larger than 7 bytes"):
        read_json(tmp_path / "cfg.json")


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_of_an_npz_file(compressed: bool, tmp_path: Path) -> None:
    arrays = {"W_enc": np.random.default_rng(0).normal(size=(3, 4)), "threshold": np.float32(2.0)}
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    found = read_npz(tmp_path / "a.npz")
    assert torch.equal(found["W_enc"], torch.from_numpy(arrays["W_enc"]))
    assert found["threshold"].item() == 2.0


def test_an_array_in_the_order_of_fortran_is_the_same(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "a.npz", a=np.asfortranarray(array))
    assert torch.equal(read_npz(tmp_path / "a.npz")["a"], torch.from_numpy(array))


def test_objects_in_an_npz_file_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(LightsaeError, match=r"array 'a.npy' is no plain array"):
        read_npz(tmp_path / "a.npz")


def _npz(path: Path, shape: tuple[int, ...], content: bytes) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + content)


@pytest.mark.parametrize("shape", [(2**40,), (9,), (-1, -8), (2, 3)])
def test_an_array_that_claims_another_size_than_it_has_is_refused(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    _npz(tmp_path / "a.npz", shape, bytes(32))
    with pytest.raises(LightsaeError, match=r"a.npz"):
        read_npz(tmp_path / "a.npz")


def test_an_npz_file_that_would_grow_without_end_is_refused(tmp_path: Path) -> None:
    _npz(tmp_path / "a.npz", (2**22,), bytes(2**24))
    with pytest.raises(LightsaeError, match=r"would grow to \d+ bytes, expected at most"):
        read_npz(tmp_path / "a.npz")


def test_a_torch_file_with_compressed_parts_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(99)}, tmp_path / "a.pt")
    assert read_torch(tmp_path / "a.pt")["a"].shape == (99,)
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as stored,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for name in stored.namelist():
            compressed.writestr(name, stored.read(name))
    with pytest.raises(LightsaeError, match=r"b.pt holds the compressed part"):
        read_torch(tmp_path / "b.pt")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "deep/../../secret", "link"])
def test_no_name_leads_out_of_a_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "secret").touch()
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(LightsaeError, match="leaves the folder"):
        file_in(folder, name)
    assert files_in(folder, "*") == []


def test_links_within_a_folder_and_into_the_blobs_of_the_hub_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1f"
    blobs = tmp_path / "models--a--b" / "blobs"
    (snapshot / "layer").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "77").write_text("{}")
    (snapshot / "layer" / "cfg.json").symlink_to(Path("..", "..", "..", "blobs", "77"))
    (snapshot / "other.json").symlink_to(snapshot / "layer" / "cfg.json")
    assert read_json(file_in(snapshot / "layer", "cfg.json")) == {}
    assert files_in(snapshot, "*.json") == [snapshot / "other.json"]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "cfg.json").mkdir()
    with pytest.raises(LightsaeError, match=r"cfg.json: no such file"):
        file_in(tmp_path, "cfg.json")
