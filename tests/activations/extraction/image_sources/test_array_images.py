import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from torch import nn

from lightsae.activations import DataOptions
from lightsae.activations.extraction.image_sources import ArrayFile
from lightsae.activations.extraction.images.image_set import load_images
from lightsae.errors import LightsaeError

OWN: dict[str, Any] = {"size": 16, "mean": [0.0] * 3, "std": [1.0] * 3}
IMAGES = np.random.default_rng(0).integers(0, 255, (7, 10, 12, 3), dtype=np.uint8)
LABELS = np.arange(7) % 2
CLASSES = np.array(["cat", "dog"])


def _npz(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


def _packed_npz(path: Path, **arrays: Any) -> None:
    np.savez_compressed(path, **arrays)


def _hdf5(path: Path, **arrays: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values.astype(object) if values.dtype.kind == "U" else values


def _packed_hdf5(path: Path, **arrays: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            packed = values.astype("S") if values.dtype.kind == "U" else values
            file.create_dataset(name, data=packed, chunks=True, compression="gzip")


WRITERS = {"a.npz": _npz, "b.npz": _packed_npz, "a.h5": _hdf5, "b.hdf5": _packed_hdf5}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("first", [False, True], ids=["NHWC", "NCHW"])
def test_images_labels_and_classes(tmp_path: Path, name: str, first: bool) -> None:
    stored = IMAGES.transpose(0, 3, 1, 2) if first else IMAGES
    WRITERS[name](tmp_path / name, images=stored, labels=LABELS, classes=CLASSES)
    arrays = ArrayFile(str(tmp_path / name))
    assert arrays.classes == ["cat", "dog"]
    for position in (6, 0, 3):
        image, label = arrays[position]
        np.testing.assert_array_equal(np.asarray(image), IMAGES[position])
        assert label == LABELS[position]
    images, _ = load_images(DataOptions(arrays=str(tmp_path / name), **OWN), nn.Identity())
    assert len(images) == 7
    item = images.load(5)
    assert item.label == 1
    assert item.image is not None
    assert item.image.shape == (3, 16, 16)


def test_a_npy_file_has_images_and_maybe_labels_beside_it(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES[..., :1])
    np.save(tmp_path / "y.npy", LABELS)
    grey = ArrayFile(str(tmp_path / "x.npy"))[2]
    np.testing.assert_array_equal(np.asarray(grey), IMAGES[2, ..., 0])
    assert ArrayFile(str(tmp_path / "x.npy"), label="y.npy")[1][1] == 1


def test_hidden_arrays_and_files_are_not_among_those_there_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"images": IMAGES, "__MACOSX/._images": LABELS})
    np.save(tmp_path / "x.npy", IMAGES)
    (tmp_path / "._x.npy").write_bytes(b"hidden")
    for name, there in (("a.npz", "images"), ("x.npy", "x.npy")):
        with pytest.raises(LightsaeError, match=rf"\(it has {there}\)$"):
            ArrayFile(str(tmp_path / name), image="pixels")


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "x.npy"])
def test_plain_arrays_are_mapped(tmp_path: Path, name: str) -> None:
    if name == "x.npy":
        np.save(tmp_path / name, IMAGES)
        arrays = ArrayFile(str(tmp_path / name))._array(name)
    else:
        WRITERS[name](tmp_path / name, images=IMAGES)
        arrays = ArrayFile(str(tmp_path / name))._array("images")
    assert isinstance(arrays, np.memmap)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"image": "image"},
            "data.image_key: FILE has no array 'image'; closest: 'images'",
        ),
        (
            {"label": "lables"},
            "data.label_key: FILE has no array 'lables'; closest: 'labels'",
        ),
        (
            {"image": "labels"},
            "FILE: labels is int64 [7], expected uint8 [N, H, W, C] or [N, C, H, W] with 1 or 3 ",
        ),
        (
            {"label": "images"},
            "FILE: images is uint8 [7, 10, 12, 3], expected integers [7], one per image",
        ),
    ],
)
@pytest.mark.parametrize("name", WRITERS)
def test_arrays_that_do_not_fit_are_told(
    tmp_path: Path, name: str, options: Any, says: str
) -> None:
    path = tmp_path / name
    WRITERS[name](path, images=IMAGES, labels=LABELS)
    with pytest.raises(LightsaeError, match=f"^{re.escape(says.replace('FILE', str(path)))}"):
        ArrayFile(str(path), **options)


def test_labels_that_do_not_fit_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS.astype(np.float32), classes=CLASSES)
    options = DataOptions(arrays=f"{tmp_path}/a.npz", labels=False, **OWN)
    images, _ = load_images(options, nn.Identity())
    assert not images.has_labels
    assert images.classes == []
    assert images.load(1).image is not None


@pytest.mark.parametrize("labels", [[0] * 6 + [2], [0] * 6 + [-1]])
def test_labels_of_no_class_are_told_at_once(tmp_path: Path, labels: list[int]) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.array(labels), classes=CLASSES)
    low, high = min(labels), max(labels)
    says = rf"a.npz: labels has {low} to {high}, expected 0 to 1; data.labels false takes none$"
    with pytest.raises(LightsaeError, match=says):
        ArrayFile(f"{tmp_path}/a.npz")


def test_a_link_of_hdf5_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = IMAGES
        file["labels"] = h5py.SoftLink("/gone")
    with pytest.raises(LightsaeError, match=r"a.h5: labels cannot be read: KeyError: "):
        ArrayFile(f"{tmp_path}/a.h5")


def test_pickled_objects_are_not_opened(tmp_path: Path) -> None:
    for name, write in (("a.npz", _npz), ("b.npz", _packed_npz)):
        write(tmp_path / name, images=np.array([None, None]))
        with pytest.raises(
            LightsaeError, match=f"{name}: images cannot be read: ValueError: .*pic"
        ):
            ArrayFile(str(tmp_path / name))
    np.save(tmp_path / "x.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(LightsaeError, match=r"x.npy cannot be read: ValueError: "):
        ArrayFile(str(tmp_path / "x.npy"))


@pytest.mark.parametrize("name", [*WRITERS, "x.npy"])
@pytest.mark.parametrize("cut", [0, 5, 300, -400])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, cut: int) -> None:
    path = tmp_path / name
    if name == "x.npy":
        np.save(path, IMAGES)
    else:
        WRITERS[name](path, images=IMAGES, labels=LABELS)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(LightsaeError, match=f"^{path}: .*cannot be read: "):
        ArrayFile(str(path))


def test_a_file_that_is_missing_or_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=f"^data.arrays: there is no file {tmp_path}/a.h5$"):
        ArrayFile(f"{tmp_path}/a.h5")
    (tmp_path / "a.csv").write_text("1,2")
    says = f"^data.arrays: {tmp_path}/a.csv is no .h5, .hdf5, .npz or .npy file$"
    with pytest.raises(LightsaeError, match=says):
        ArrayFile(f"{tmp_path}/a.csv")


@pytest.mark.parametrize("name", WRITERS)
def test_another_file_has_another_fingerprint_and_other_images(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, images=IMAGES)
    before = ArrayFile(str(path))
    assert ArrayFile(str(path)).fingerprint == before.fingerprint
    path.unlink()
    WRITERS[name](path, images=IMAGES[::-1])
    after = ArrayFile(str(path))
    assert after.fingerprint != before.fingerprint
    np.testing.assert_array_equal(np.asarray(after[0]), IMAGES[6])
