"""Folders of images: which files are images, which folders classes, what is unreadable."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightsae.activations import DataOptions
from lightsae.activations.extraction.images.image_set import (
    DatasetImages,
    FolderImages,
    load_images,
)
from lightsae.errors import LightsaeError
from tests.activations.tiffs import damaged_tiff

from .pictures import OWN, as_tensor, save_picture


def test_subfolders_are_classes(tmp_path: Path) -> None:
    for name in ("dog/2.png", "cat/1.jpg", "dog/1.png"):
        save_picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    images = FolderImages(tmp_path, as_tensor)
    assert images.classes == ["cat", "dog"]
    assert [images.load(i).label for i in range(len(images))] == [0, 1, 1]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    save_picture(tmp_path / "b.png")
    save_picture(tmp_path / "a.png")
    images = FolderImages(tmp_path, as_tensor)
    assert not images.has_labels
    assert images.load(0).label is None


def test_a_stray_image_next_to_classes_is_named(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "stray.png"):
        save_picture(tmp_path / name)
    says = f"^data.folder: {tmp_path}/stray.png is in no subfolder, expected every image in one, "
    with pytest.raises(LightsaeError, match=says):
        FolderImages(tmp_path, as_tensor)


def test_hidden_files_are_no_images_and_hidden_folders_no_classes(tmp_path: Path) -> None:
    hidden = (".ipynb_checkpoints/1.png", "__MACOSX/1.png", "cat/._1.png", "._2.png", "Thumbs.db")
    for name in ("cat/1.png", "dog/1.png"):
        save_picture(tmp_path / name)
    before = FolderImages(tmp_path, as_tensor)
    for name in hidden:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"hidden")
    images = FolderImages(tmp_path, as_tensor)
    assert images.classes == ["cat", "dog"]
    assert [images.load(i).label for i in range(len(images))] == [0, 1]
    assert images.fingerprint == before.fingerprint


def test_images_of_every_ending_are_read_and_the_rest_is_told(tmp_path: Path) -> None:
    for name in ("a.jfif", "b.jpe", "c.jp2", "d.tga", "e.png"):
        save_picture(tmp_path / name)
    for name in ("x.txt", "y.txt", "z.eps"):
        (tmp_path / name).touch()
    images = FolderImages(tmp_path, as_tensor)
    assert len(images) == 5
    assert all(images.load(i).image is not None for i in range(5))
    assert images.notes == [
        f"{tmp_path}: 3 files are no images that Pillow reads and are left out: 2 .txt, 1 .eps"
    ]


def test_a_class_without_images_stays_one_and_is_told(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        save_picture(tmp_path / name)
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "1.heiic").touch()
    (tmp_path / "cow").mkdir()
    (tmp_path / "pig").symlink_to(tmp_path / "gone")
    images = FolderImages(tmp_path, as_tensor)
    assert images.classes == ["bird", "cat", "cow", "dog", "pig"]
    assert [images.load(i).label for i in range(2)] == [1, 3]
    assert images.notes[-1] == f"{tmp_path}: classes without an image: bird, cow, pig"


def test_classes_whose_names_read_alike_are_told(tmp_path: Path) -> None:
    for name in ("Cat", "cat", "dog", "Caf\u00e9", "Cafe\u0301"):
        (tmp_path / name).mkdir()
        save_picture(tmp_path / name / "1.png")
    if len(list(tmp_path.iterdir())) < 5:
        pytest.skip("the system takes these names for the same")
    (note,) = FolderImages(tmp_path, as_tensor).notes
    assert note == f"{tmp_path}: classes whose names read alike: Cafe\u0301, Caf\u00e9, Cat, cat"


def test_a_folder_beside_unlabelled_images_is_no_class(tmp_path: Path) -> None:
    save_picture(tmp_path / "1.png")
    (tmp_path / "notes").mkdir()
    images = FolderImages(tmp_path, as_tensor)
    assert images.classes == []
    assert not images.has_labels


def test_a_folder_of_nothing_that_is_read_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.heiic").touch()
    says = "holds no images: 1 file is no image that Pillow reads .*: 1 .heiic$"
    with pytest.raises(LightsaeError, match=says):
        FolderImages(tmp_path, as_tensor)


def test_images_of_a_mixed_folder_are_taken_without_labels_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    for name in ("cat/1.png", "dog/deep/1.png", "stray.png"):
        save_picture(tmp_path / name)
    images, _ = load_images(DataOptions(folder=str(tmp_path), labels=False, **OWN), nn.Identity())
    assert len(images) == 3
    assert images.classes == []
    assert not images.has_labels
    assert [images.load(i).label for i in range(3)] == [None] * 3
    with pytest.raises(LightsaeError, match=r"or none; data.labels false takes all without them$"):
        load_images(DataOptions(folder=str(tmp_path), **OWN), nn.Identity())


def test_a_class_may_be_a_link_to_a_folder(tmp_path: Path) -> None:
    save_picture(tmp_path / "photos" / "cat" / "1.png")
    save_picture(tmp_path / "elsewhere" / "deep" / "2.png")
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "hound").symlink_to(tmp_path / "elsewhere")
    images = FolderImages(tmp_path / "photos", as_tensor)
    assert images.classes == ["cat", "dog", "hound"]
    assert [images.load(i).label for i in range(len(images))] == [0, 1, 2]


def test_a_cycle_of_links_ends(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        save_picture(tmp_path / name)
    (tmp_path / "cat" / "all").symlink_to(tmp_path)
    (tmp_path / "cat" / "other").symlink_to(tmp_path / "dog")
    (tmp_path / "dog" / "other").symlink_to(tmp_path / "cat")
    images = FolderImages(tmp_path, as_tensor)
    names = [str(path) for path in images._paths]
    assert names == ["cat/1.png", "cat/other/1.png", "dog/1.png", "dog/other/1.png"]


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_picture(tmp_path / "cat" / "1.png")

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(LightsaeError, match=f"^data.folder: {tmp_path} cannot be read: Permission"):
        FolderImages(tmp_path, as_tensor)


@pytest.mark.parametrize("cut", [0, 5, 300])
def test_an_unreadable_image_is_named(tmp_path: Path, cut: int) -> None:
    save_picture(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:cut])
    item = FolderImages(tmp_path, as_tensor).load(0)
    assert item.image is None
    assert item.problem.startswith(f"{tmp_path}/a.png is not a readable image: ")


def test_what_pillow_and_libtiff_say_of_an_image_names_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tif").write_bytes(damaged_tiff(odd_tag=True))
    (tmp_path / "b.tif").write_bytes(damaged_tiff(torn=True))
    folder = FolderImages(tmp_path, as_tensor)
    listed = DatasetImages(_Opened(tmp_path), as_tensor, "listed")
    for images, good, bad in (
        (folder, f"{tmp_path}/a.tif", f"{tmp_path}/b.tif is not a readable image"),
        (listed, "item 0 of listed", "item 1 of listed is unreadable"),
    ):
        item = images.load(0)
        assert item.image is not None
        assert item.warning.startswith(f"{good}: was read with ")
        assert item.warning.endswith("the first: Tag data larger than file. Skipping tag 65001")
        says = f"{bad}: OSError: decoder error -2 (ZIPDecode: Decoding error at scanline ..., ...)"
        assert images.load(1).problem == says
    assert capfd.readouterr().err == ""


class _Opened(torch.utils.data.Dataset[Any]):
    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Any:
        with Image.open(self.paths[i]) as image:
            image.load()
            return image


def test_grey_of_16_bits_keeps_its_shades(tmp_path: Path) -> None:
    ramp = np.arange(0, 65_000, 65, dtype=np.uint16).reshape(20, 50)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    image = FolderImages(tmp_path, as_tensor).load(0).image
    assert isinstance(image, torch.Tensor)
    assert len(image.unique()) == len(np.unique(np.round(ramp / 257)))
    item = DatasetImages([Image.fromarray(ramp)], as_tensor, "ramps").load(0)
    assert torch.equal(item.image, image)  # type: ignore[arg-type]


def test_an_image_of_floats_is_unreadable(tmp_path: Path) -> None:
    image = Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4))
    image.save(tmp_path / "a.tif")
    for item in (
        FolderImages(tmp_path, as_tensor).load(0),
        DatasetImages([image], as_tensor, "floats").load(0),
    ):
        assert item.image is None
        assert "readable" in item.problem
        assert "its mode is F, numbers of 32 bits without a known range" in item.problem


def test_a_missing_or_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="there is no folder"):
        FolderImages(tmp_path / "no", as_tensor)
    with pytest.raises(LightsaeError, match="holds no images"):
        FolderImages(tmp_path, as_tensor)


@pytest.mark.parametrize("size", [(1, 9000), (9000, 1)])
def test_an_image_that_would_grow_beyond_memory_is_unreadable(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    options = DataOptions(folder=str(tmp_path), **{**OWN, "size": 256})
    images, _ = load_images(options, nn.Identity())
    says = (
        f"ValueError: its sides are {size[0]} and {size[1]}, resized it would be 589824000 pixels"
    )
    assert says in images.load(0).problem
    module = nn.Identity()
    module.preparation = {"crop_mode": "squash", "input_size": 256}  # type: ignore[assignment]
    images, _ = load_images(DataOptions(folder=str(tmp_path)), module)
    assert images.load(0).image is not None


def _write_again(path: Path) -> None:
    save_picture(path, seed=1)


def _touch(path: Path) -> None:
    os.utime(path, ns=(0, 0))


def _rename(path: Path) -> None:
    path.rename(path.with_name("z.png"))


@pytest.mark.parametrize("change", [_write_again, _touch, _rename, Path.unlink])
def test_a_changed_file_changes_the_fingerprint(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    for name in ("a.png", "b.png"):
        save_picture(tmp_path / name)
    before = FolderImages(tmp_path, as_tensor).fingerprint
    assert FolderImages(tmp_path, as_tensor).fingerprint == before
    change(tmp_path / "b.png")
    assert FolderImages(tmp_path, as_tensor).fingerprint != before


def test_a_name_that_is_not_utf8_is_a_name(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    assert FolderImages(tmp_path, as_tensor).load(0).image is not None


@pytest.mark.parametrize(("target", "error"), [("gone.png", "FileNotFound"), ("a.png", "OS")])
def test_a_link_to_nowhere_is_an_unreadable_image(tmp_path: Path, target: str, error: str) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / target)
    problem = FolderImages(tmp_path, as_tensor).load(0).problem
    assert problem.startswith(f"{tmp_path}/a.png is not a readable image: {error}Error")
