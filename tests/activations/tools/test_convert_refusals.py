"""What a conversion does not understand is named, with what was expected."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lightsae.activations.tools.convert import convert
from lightsae.activations.tools.foreign_activations import Foreign
from lightsae.errors import LightsaeError

from .foreign_files import VALUES, Save, npy, npz, saelens, saev


def _pickled(folder: Path) -> Path:
    np.save(folder / "a.npy", np.array([{}], object), allow_pickle=True)
    return folder / "a.npy"


def _integers(folder: Path) -> Path:
    np.save(folder / "a.npy", np.zeros((3, 2), np.int64))
    return folder / "a.npy"


def _several(folder: Path) -> Path:
    np.savez(folder / "a.npz", acts=VALUES, other=VALUES)
    return folder / "a.npz"


def _flat(folder: Path) -> Path:
    np.save(folder / "a.npy", np.zeros(3, np.float32))
    return folder / "a.npy"


def _module(folder: Path) -> Path:
    torch.save(torch.nn.Linear(2, 2), folder / "a.pt")
    return folder / "a.pt"


def _cut(folder: Path) -> Path:
    saev(folder, layers=[3])
    (folder / "acts000000.bin").write_bytes(bytes(4 * 19 * 4 * 6))
    return folder


def _escaping(folder: Path) -> Path:
    saev(folder, layers=[3])
    (folder / "shards.json").write_text('[{"name": "../acts000000.bin", "n_ex": 1}]')
    return folder


def _empty(folder: Path) -> Path:
    np.savez(folder / "a.npz")
    return folder / "a.npz"


def _no_tensor(folder: Path) -> Path:
    torch.save({"step": 3}, folder / "a.pt")
    return folder / "a.pt"


def _tensor(tensor: torch.Tensor) -> Save:
    def save(folder: Path) -> Path:
        torch.save(tensor, folder / "a.pt")
        return folder / "a.pt"

    return save


def _nested() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a prototype
        return torch.nested.nested_tensor([torch.zeros(3, 4), torch.zeros(2, 4)])


def _dataset(rows: dict[str, list[Any]], feature: str, files: int | None = None) -> Save:
    def save(folder: Path) -> Path:
        datasets = pytest.importorskip("datasets")
        kinds = {"array": datasets.Array2D((None, 6), "float32"), "text": datasets.Value("string")}
        features = datasets.Features({"blocks.3.hook": kinds[feature]})
        found = datasets.Dataset.from_dict(rows, features=features)
        found.save_to_disk(str(folder / "cached"), num_shards=files)
        return folder / "cached"

    return save


_UNEQUAL = [np.zeros((4, 6)), np.zeros((4, 6)), np.zeros((2, 6))]


def _nothing(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    ("save", "says"),
    [
        (_pickled, "a.npy: cannot be read: .* Python objects in dtype"),
        (_integers, "a.npy: the array is int64, expected floats"),
        (_several, "several arrays, key says which .it has acts, other"),
        (_flat, r"a.npy: the array is \[3\], expected \[N, D\] or \[N, T, D\]"),
        (_module, "a.pt: cannot be read as tensors: it holds objects: torch.nn"),
        (saev, r"layer is None, it has the layers \[3, 7\]"),
        (_cut, r"acts000000.bin: is not \[20, 1, 4, 6\] float32, it has 1824 bytes"),
        (_escaping, "names '../acts000000.bin', expected a file of it"),
        (_nothing, "has no metadata.json of saev and no state.json of SAELens"),
        (lambda folder: folder / "none.npy", "source: there is no "),
        (lambda folder: folder, "has no metadata.json"),
        (_empty, "a.npz: has no array$"),
        (_no_tensor, "a.pt: has no array$"),
        (_tensor(torch.zeros(3, 4).to_sparse()), "a.pt: the tensor is sparse, expected a dense"),
        (_tensor(torch.zeros(3, 4, device="meta")), "a.pt: the tensor is meta, expected a dense"),
        (_tensor(_nested()), "a.pt: the tensor is nested, expected a dense"),
        (_dataset({"blocks.3.hook": []}, "array"), "cached: has no rows"),
        (_dataset({"blocks.3.hook": []}, "array", files=1), "cached: has no rows"),
        (_dataset({"blocks.3.hook": ["a"]}, "text"), r"cached: blocks.3.hook is \[1\], expected"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")
def test_what_is_not_understood_is_named(save: Save, says: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(LightsaeError, match=says):
        convert(str(save(tmp_path)), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.arange(3))
    with pytest.raises(LightsaeError, match=r"labels.npy is int64 \[3\], expected integers \[30\]"):
        convert(str(npy(tmp_path)), str(tmp_path / "out"), labels=str(tmp_path / "labels.npy"))


def test_rows_of_unequal_length_are_named(tmp_path: Path) -> None:
    source = _dataset({"blocks.3.hook": _UNEQUAL}, "array")(tmp_path)
    with pytest.raises(
        LightsaeError, match=r"cached: row 2 of .* is \[2, 6\], expected \[4, 6\] a"
    ):
        convert(str(source), str(tmp_path / "out"))


def test_what_fails_in_the_middle_of_reading_names_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(part: slice) -> torch.Tensor:
        raise RuntimeError("a block\nis damaged")

    found = Foreign((30, 4, 6), read)
    monkeypatch.setattr("lightsae.activations.tools.convert.open_foreign", lambda *given: found)
    with pytest.raises(LightsaeError, match=r"a.npy: cannot be read: RuntimeError: a block; is da"):
        convert(str(npy(tmp_path)), str(tmp_path / "out"))


@pytest.mark.parametrize(("bad", "says"), [(np.nan, "nan, expected a f"), (7e4, "70000, too lar")])
def test_a_value_that_cannot_be_stored_names_source_and_row(
    bad: float, says: str, tmp_path: Path
) -> None:
    values = VALUES.copy()
    values[17, 3, 2] = bad
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(LightsaeError, match=rf"a.npy: sample 17, token 3, .* \[2\] is {says}"):
        convert(str(tmp_path / "a.npy"), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("save", "given", "says"),
    [
        (npy, {"layer": 3}, "a.npy: layer is 3, but only a folder of saev has layers"),
        (saelens, {"layer": 3}, "cached: layer is 3, but only a folder of saev has layers"),
        (npy, {"key": "acts"}, "a.npy: key is 'acts', but it has no names"),
        (_tensor(torch.zeros(3, 4)), {"key": "acts"}, "a.pt: key is 'acts', but it has no names"),
        (saev, {"layer": 7, "key": "acts"}, ": key is 'acts', but it has no names"),
        (npz, {"key": "act"}, "a.npz: no array 'act'; closest: 'acts' .it has acts"),
        (_several, {"key": ""}, "a.npz: no array '' .it has acts, other"),
    ],
)
def test_a_key_or_layer_that_is_not_there_is_refused(
    save: Save, given: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(LightsaeError, match=says):
        convert(str(save(tmp_path)), str(tmp_path / "out"), **given)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    """Datasets in groups, and everything that leads out of the file."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["acts"] = VALUES
    VALUES.tofile(tmp_path / "acts.bin")
    layout = h5py.VirtualLayout(VALUES.shape, np.float32)
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "acts", VALUES.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/acts"], file["g/h/acts"] = VALUES, VALUES + 100
        file["linked"] = h5py.ExternalLink("other.h5", "acts")
        file["soft"] = h5py.SoftLink("/linked")
        file.create_virtual_dataset("virtual", layout)
        outside = [(tmp_path / "acts.bin", 0, VALUES.nbytes)]
        file.create_dataset("outside", VALUES.shape, np.float32, external=outside)
    return tmp_path / "a.h5"


def test_a_dataset_in_a_group_is_named_by_its_path(
    grouped: Path, all_rows: Callable[[Path], np.ndarray]
) -> None:
    out = grouped.parent / "out"
    convert(str(grouped), str(out), key="g/h/acts", dtype="float32")
    assert np.array_equal(all_rows(out), (VALUES + 100).reshape(-1, 6))


@pytest.mark.parametrize("key", ["linked", "soft", "virtual", "outside", "g", "/g/acts"])
def test_nothing_leads_out_of_an_hdf5_file(grouped: Path, key: str) -> None:
    with pytest.raises(LightsaeError, match=rf"no array '{key}'.* .it has g/acts, g/h/acts.$"):
        convert(str(grouped), str(grouped.parent / "out"), key=key)


def test_labels_that_are_no_array_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", labels=np.arange(30))
    with pytest.raises(
        LightsaeError, match=r"labels.npz cannot be read as .npy: ValueError: the m"
    ):
        convert(str(npy(tmp_path)), str(tmp_path / "out"), labels=str(tmp_path / "labels.npz"))


def test_labels_too_large_for_int64_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.full(30, 2**63, np.uint64))
    with pytest.raises(LightsaeError, match="holds 9223372036854775808, expected numbers below 2"):
        convert(str(npy(tmp_path)), str(tmp_path / "out"), labels=str(tmp_path / "labels.npy"))
