import os
import re
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
from tests.activations.stand_ins import Noise
from tests.activations.tiffs import damaged_tiff

STAND_INS = "tests.activations.stand_ins"
OWN = {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3}


def _save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_subfolders_are_classes(tmp_path: Path) -> None:
    for name in ("dog/2.png", "cat/1.jpg", "dog/1.png"):
        _save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    images = FolderImages(tmp_path, _tensor)
    assert images.classes == ["cat", "dog"]
    assert [images.load(i).label for i in range(len(images))] == [0, 1, 1]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    _save(tmp_path / "b.png")
    _save(tmp_path / "a.png")
    images = FolderImages(tmp_path, _tensor)
    assert not images.has_labels
    assert images.load(0).label is None


def test_a_stray_image_next_to_classes_is_named(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "stray.png"):
        _save(tmp_path / name)
    says = f"^data.folder: {tmp_path}/stray.png is in no subfolder, expected every image in one, "
    with pytest.raises(LightsaeError, match=says):
        FolderImages(tmp_path, _tensor)


def test_hidden_files_are_no_images_and_hidden_folders_no_classes(tmp_path: Path) -> None:
    hidden = (".ipynb_checkpoints/1.png", "__MACOSX/1.png", "cat/._1.png", "._2.png", "Thumbs.db")
    for name in ("cat/1.png", "dog/1.png"):
        _save(tmp_path / name)
    before = FolderImages(tmp_path, _tensor)
    for name in hidden:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"hidden")
    images = FolderImages(tmp_path, _tensor)
    assert images.classes == ["cat", "dog"]
    assert [images.load(i).label for i in range(len(images))] == [0, 1]
    assert images.fingerprint == before.fingerprint


def test_images_of_every_ending_are_read_and_the_rest_is_told(tmp_path: Path) -> None:
    for name in ("a.jfif", "b.jpe", "c.jp2", "d.tga", "e.png"):
        _save(tmp_path / name)
    for name in ("x.txt", "y.txt", "z.eps"):
        (tmp_path / name).touch()
    images = FolderImages(tmp_path, _tensor)
    assert len(images) == 5
    assert all(images.load(i).image is not None for i in range(5))
    assert images.notes == [
        f"{tmp_path}: 3 files are no images that Pillow reads and are left out: 2 .txt, 1 .eps"
    ]


def test_a_class_without_images_stays_one_and_is_told(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        _save(tmp_path / name)
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "1.heiic").touch()
    (tmp_path / "cow").mkdir()
    (tmp_path / "pig").symlink_to(tmp_path / "gone")
    images = FolderImages(tmp_path, _tensor)
    assert images.classes == ["bird", "cat", "cow", "dog", "pig"]
    assert [images.load(i).label for i in range(2)] == [1, 3]
    assert images.notes[-1] == f"{tmp_path}: classes without an image: bird, cow, pig"


def test_classes_whose_names_read_alike_are_told(tmp_path: Path) -> None:
    for name in ("Cat", "cat", "dog", "Caf\u00e9", "Cafe\u0301"):
        (tmp_path / name).mkdir()
        _save(tmp_path / name / "1.png")
    if len(list(tmp_path.iterdir())) < 5:
        pytest.skip("the system takes these names for the same")
    (note,) = FolderImages(tmp_path, _tensor).notes
    assert note == f"{tmp_path}: classes whose names read alike: Cafe\u0301, Caf\u00e9, Cat, cat"


def test_a_folder_beside_unlabelled_images_is_no_class(tmp_path: Path) -> None:
    _save(tmp_path / "1.png")
    (tmp_path / "notes").mkdir()
    images = FolderImages(tmp_path, _tensor)
    assert images.classes == []
    assert not images.has_labels


def test_a_folder_of_nothing_that_is_read_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.heiic").touch()
    says = "holds no images: 1 file is no image that Pillow reads .*: 1 .heiic$"
    with pytest.raises(LightsaeError, match=says):
        FolderImages(tmp_path, _tensor)


def test_images_of_a_mixed_folder_are_taken_without_labels_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    for name in ("cat/1.png", "dog/deep/1.png", "stray.png"):
        _save(tmp_path / name)
    images, _ = load_images(DataOptions(folder=str(tmp_path), labels=False, **OWN), nn.Identity())
    assert len(images) == 3
    assert images.classes == []
    assert not images.has_labels
    assert [images.load(i).label for i in range(3)] == [None] * 3
    with pytest.raises(LightsaeError, match=r"or none; data.labels false takes all without them$"):
        load_images(DataOptions(folder=str(tmp_path), **OWN), nn.Identity())


def test_items_of_a_dataset_are_taken_without_labels_where_that_is_asked_for() -> None:
    for items in ([(IMAGE, "cat"), (IMAGE, None)], [IMAGE, IMAGE]):
        images = DatasetImages(items, _tensor, "listed", labels=False)
        assert not images.has_labels
        assert images.classes == []
        assert [images.load(i).label for i in range(2)] == [None] * 2
        assert images.load(1).image is not None


def test_a_key_of_labels_where_none_are_wanted_is_refused() -> None:
    says = "^data.label_key is 'y' and data.labels is false: give one of them$"
    with pytest.raises(LightsaeError, match=says):
        load_images(DataOptions(arrays="a", label_key="y", labels=False), nn.Identity())


def test_a_class_may_be_a_link_to_a_folder(tmp_path: Path) -> None:
    _save(tmp_path / "photos" / "cat" / "1.png")
    _save(tmp_path / "elsewhere" / "deep" / "2.png")
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "hound").symlink_to(tmp_path / "elsewhere")
    images = FolderImages(tmp_path / "photos", _tensor)
    assert images.classes == ["cat", "dog", "hound"]
    assert [images.load(i).label for i in range(len(images))] == [0, 1, 2]


def test_a_cycle_of_links_ends(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        _save(tmp_path / name)
    (tmp_path / "cat" / "all").symlink_to(tmp_path)
    (tmp_path / "cat" / "other").symlink_to(tmp_path / "dog")
    (tmp_path / "dog" / "other").symlink_to(tmp_path / "cat")
    images = FolderImages(tmp_path, _tensor)
    names = [str(path) for path in images._paths]
    assert names == ["cat/1.png", "cat/other/1.png", "dog/1.png", "dog/other/1.png"]


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path / "cat" / "1.png")

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(LightsaeError, match=f"^data.folder: {tmp_path} cannot be read: Permission"):
        FolderImages(tmp_path, _tensor)


@pytest.mark.parametrize("cut", [0, 5, 300])
def test_an_unreadable_image_is_named(tmp_path: Path, cut: int) -> None:
    _save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:cut])
    item = FolderImages(tmp_path, _tensor).load(0)
    assert item.image is None
    assert item.problem.startswith(f"{tmp_path}/a.png is not a readable image: ")


def test_what_pillow_and_libtiff_say_of_an_image_names_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tif").write_bytes(damaged_tiff(odd_tag=True))
    (tmp_path / "b.tif").write_bytes(damaged_tiff(torn=True))
    folder = FolderImages(tmp_path, _tensor)
    listed = DatasetImages(_Opened(tmp_path), _tensor, "listed")
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
    image = FolderImages(tmp_path, _tensor).load(0).image
    assert isinstance(image, torch.Tensor)
    assert len(image.unique()) == len(np.unique(np.round(ramp / 257)))
    item = DatasetImages([Image.fromarray(ramp)], _tensor, "ramps").load(0)
    assert torch.equal(item.image, image)  # type: ignore[arg-type]


def test_an_image_of_floats_is_unreadable(tmp_path: Path) -> None:
    image = Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4))
    image.save(tmp_path / "a.tif")
    for item in (
        FolderImages(tmp_path, _tensor).load(0),
        DatasetImages([image], _tensor, "floats").load(0),
    ):
        assert item.image is None
        assert "readable" in item.problem
        assert "its mode is F, numbers of 32 bits without a known range" in item.problem


def test_a_missing_or_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match="there is no folder"):
        FolderImages(tmp_path / "no", _tensor)
    with pytest.raises(LightsaeError, match="holds no images"):
        FolderImages(tmp_path, _tensor)


def test_a_folder_needs_to_know_how_images_are_prepared(tmp_path: Path) -> None:
    _save(tmp_path / "a.png")
    with pytest.raises(LightsaeError, match=r"data.size, data.mean and data.std are needed"):
        load_images(DataOptions(folder=str(tmp_path)), nn.Identity())
    images, settings = load_images(DataOptions(folder=str(tmp_path), **OWN), nn.Identity())
    assert images.load(0).image.shape == (3, 16, 16)  # type: ignore[union-attr]
    assert settings["std"] == [0.25] * 3


def test_a_timm_model_says_how_images_are_prepared(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    _save(tmp_path / "a.png")
    small = {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}
    module = timm.create_model("vit_tiny_patch16_224", **small)
    module.pretrained_cfg = {**module.pretrained_cfg, "input_size": (3, 16, 16)}
    images, settings = load_images(DataOptions(folder=str(tmp_path), crop=1.0), module)
    assert settings["mean"] == [0.5] * 3
    assert settings["crop_pct"] == 1.0
    assert images.load(0).image.shape == (3, 16, 16)  # type: ignore[union-attr]


SMALL_VIT = {"img_size": 32, "depth": 1}


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("test_vit", SMALL_VIT, [32, 32]),
        ("test_vit", {**SMALL_VIT, "img_size": [32, 48]}, [32, 48]),
        ("test_vit", {**SMALL_VIT, "dynamic_img_size": False}, [32, 32]),
        ("test_vit", {"depth": 1}, [160, 160]),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "depths": [1], "num_heads": [2]},
            [64] * 2,
        ),
        ("test_resnet", {}, [160, 160]),
    ],
)
def test_images_have_the_size_that_a_timm_model_was_built_for(
    tmp_path: Path, name: str, arguments: dict[str, Any], size: list[int]
) -> None:
    timm = pytest.importorskip("timm")
    _save(tmp_path / "a.png")
    module = timm.create_model(name, **arguments)
    images, settings = load_images(DataOptions(folder=str(tmp_path)), module)
    assert settings["input_size"] == [3, *size]
    image = images.load(0).image
    assert isinstance(image, torch.Tensor)
    module(image[None])


def test_another_size_than_a_timm_model_was_built_for_is_refused(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    _save(tmp_path / "a.png")
    options = DataOptions(folder=str(tmp_path), size=48)
    module = timm.create_model("test_vit", **SMALL_VIT, dynamic_img_size=False)
    says = (
        "data.size is 48: VisionTransformer was built for images of 32 x 32 (img_size among its a"
    )
    with pytest.raises(LightsaeError, match=f"^{re.escape(says)}"):
        load_images(options, module)
    module = timm.create_model("test_vit", **SMALL_VIT)
    images, _ = load_images(options, module)
    module(images.load(0).image[None])  # type: ignore[index]


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet"])
def test_a_timm_model_of_one_channel_gets_grey_images(tmp_path: Path, name: str) -> None:
    timm = pytest.importorskip("timm")
    _save(tmp_path / "a.png")
    module = timm.create_model(name, in_chans=1)
    images, settings = load_images(DataOptions(folder=str(tmp_path)), module)
    assert settings["input_size"] == [1, 160, 160]
    assert len(settings["mean"]) == len(settings["std"]) == 1
    image = images.load(0).image
    assert isinstance(image, torch.Tensor)
    assert image.shape == (1, 160, 160)
    module(image[None])


def test_a_model_of_four_channels_gets_tensors_only(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    _save(tmp_path / "a.png")
    module = timm.create_model("test_vit", in_chans=4)
    says = "^model: VisionTransformer takes images of 4 channels, expected 1 .grey. or 3 .RGB.; oth"
    with pytest.raises(LightsaeError, match=says):
        load_images(DataOptions(folder=str(tmp_path)), module)
    images, _ = load_images(DataOptions(dataset=f"{STAND_INS}.Noise"), module)
    assert images.load(0).image is not None


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"input_size": "32"}, "input_size is '32', expected a side in pixels, or [channels, heig"),
        ({"input_size": [32, 32]}, "input_size is [32, 32], expected a side in pixels, or [chann"),
        ({"input_size": 0}, "input_size is 0, expected a side in pixels, or [channels, height, w"),
        ({"mean": 0.5}, "mean is 0.5, expected a list of numbers, one per channel"),
        ({"std": [0.5, 0.0, 0.5]}, "std is [0.5, 0.0, 0.5], expected a list of numbers above 0, o"),
        (
            {"input_size": [3, 8, 8], "mean": [0.5, 0.5]},
            "mean has 2 numbers, expected 3, one per channel",
        ),
        ({"crop_pct": "all"}, "crop_pct is 'all', expected a number above 0"),
        (
            {"interpolation": "cubicc"},
            "interpolation is 'cubicc', expected one of nearest, bilinear, bicubic, box",
        ),
        ({"crop_mode": "middle"}, "crop_mode is 'middle', expected one of center, squash, border"),
    ],
)
def test_a_preparation_that_cannot_be_is_told_before_images_are_read(
    tmp_path: Path, said: dict[str, Any], says: str
) -> None:
    module = nn.Identity()
    module.preparation = said  # type: ignore[assignment]
    with pytest.raises(LightsaeError, match=f"^preparation of Identity: {re.escape(says)}"):
        load_images(DataOptions(folder=str(tmp_path)), module)


def test_a_preparation_may_say_the_side_alone(tmp_path: Path) -> None:
    _save(tmp_path / "a.png")
    module = nn.Identity()
    module.preparation = {"input_size": 12}  # type: ignore[assignment]
    images, settings = load_images(DataOptions(folder=str(tmp_path)), module)
    assert settings["input_size"] == [3, 12, 12]
    assert images.load(0).image.shape == (3, 12, 12)  # type: ignore[union-attr]
    module.preparation = {"input_size": 12, "mean": [0.5], "std": [0.5]}  # type: ignore[assignment]
    images, _ = load_images(DataOptions(folder=str(tmp_path)), module)
    assert images.load(0).image.shape == (1, 12, 12)  # type: ignore[union-attr]


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


def test_one_source_of_images_is_given() -> None:
    five = "data: give one of folder, dataset, huggingface, webdataset, arrays; "
    for options, here in (
        (DataOptions(), "there is none"),
        (DataOptions(folder="a", dataset="b"), "here are folder, dataset"),
        (DataOptions(webdataset="a", arrays="b"), "here are webdataset, arrays"),
    ):
        with pytest.raises(LightsaeError, match=f"^{five}{here}$"):
            load_images(options, nn.Identity())


@pytest.mark.parametrize("kind", ["folder", "dataset", "huggingface", "webdataset", "arrays"])
def test_a_source_of_no_name_is_refused(kind: str) -> None:
    with pytest.raises(LightsaeError, match=f"^data.{kind} is '', expected the name of one$"):
        load_images(DataOptions(**{kind: ""}), nn.Identity())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"folder": "a", "arguments": {"root": "b"}},
            "data.arguments is {'root': 'b'}: it is for dataset and huggingface, "
            "data.folder takes none",
        ),
        (
            {"arrays": "a", "split": "train"},
            "data.split is 'train': it is for huggingface, data.arrays takes none",
        ),
        (
            {"dataset": "a", "label_key": "y"},
            "data.label_key is 'y': it is for huggingface and webdataset and arrays, "
            "data.dataset takes none",
        ),
    ],
)
def test_a_key_of_another_source_is_refused(options: Any, message: str) -> None:
    with pytest.raises(LightsaeError, match=f"^{re.escape(message)}$"):
        load_images(DataOptions(**options), nn.Identity())


@pytest.mark.parametrize("options", [{"dataset": "no.Such"}, {"arguments": {"nope": 1}}])
def test_a_dataset_that_cannot_be_built_is_named(options: Any) -> None:
    options = {"dataset": "tests.activations.stand_ins.Noise", **options}
    with pytest.raises(LightsaeError, match=r"data.dataset: cannot (import|build)"):
        load_images(DataOptions(**options), nn.Identity())


def test_an_empty_dataset_is_named() -> None:
    with pytest.raises(LightsaeError, match="noise is empty"):
        DatasetImages(Noise(0), _tensor, "noise")


class _Pictures(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> Any:
        return Image.new("L", (4, 4), i)


def test_pil_images_of_a_dataset_are_prepared() -> None:
    images = DatasetImages(_Pictures(), _tensor, "pictures")
    assert not images.has_labels
    item = images.load(1)
    assert item.label is None
    assert item.image is not None
    assert item.image.unique().tolist() == [1]


def test_an_unreadable_item_is_named() -> None:
    item = DatasetImages(Noise(4, bad=(2,)), _tensor, "noise").load(2)
    assert item.problem == "item 2 of noise is unreadable: OSError: broken file"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "data.size is 0, expected at least 1 pixel"),
        ({"size": -3}, "data.size is -3, expected at least 1 pixel"),
        ({"crop": 0.0}, "data.crop is 0.0, expected above 0 and at most 1"),
        ({"crop": 1.1}, "data.crop is 1.1, expected above 0 and at most 1"),
        ({"std": [0.2, 0.0, 0.2]}, "data.std is [0.2, 0.0, 0.2], expected finite numbers above 0"),
        ({"std": [-1.0]}, "data.std is [-1.0], expected finite numbers above 0"),
        ({"mean": [float("nan")]}, "data.mean is [nan], expected finite numbers"),
        (
            {"interpolation": "cubic"},
            "data.interpolation is 'cubic', expected one of nearest, bilinear, bicubic",
        ),
    ],
)
def test_an_option_that_cannot_be_is_told_by_key(options: Any, message: str) -> None:
    with pytest.raises(LightsaeError, match=f"^{re.escape(message)}$"):
        DataOptions(folder="somewhere", **options)


@pytest.mark.parametrize(("key", "values"), [("mean", [0.5]), ("std", [0.5] * 4), ("mean", [])])
def test_there_is_one_mean_and_std_per_channel(key: str, values: list[float]) -> None:
    module = nn.Identity()
    module.pretrained_cfg = {"input_size": (3, 16, 16)}  # type: ignore[assignment]
    message = f"data.{key} has {len(values)} numbers, expected 3, one per channel"
    with pytest.raises(LightsaeError, match=message):
        load_images(DataOptions(folder="somewhere", **{key: values}), module)


def _write_again(path: Path) -> None:
    _save(path, seed=1)


def _touch(path: Path) -> None:
    os.utime(path, ns=(0, 0))


def _rename(path: Path) -> None:
    path.rename(path.with_name("z.png"))


@pytest.mark.parametrize("change", [_write_again, _touch, _rename, Path.unlink])
def test_a_changed_file_changes_the_fingerprint(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    for name in ("a.png", "b.png"):
        _save(tmp_path / name)
    before = FolderImages(tmp_path, _tensor).fingerprint
    assert FolderImages(tmp_path, _tensor).fingerprint == before
    change(tmp_path / "b.png")
    assert FolderImages(tmp_path, _tensor).fingerprint != before


def test_a_name_that_is_not_utf8_is_a_name(tmp_path: Path) -> None:
    _save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    assert FolderImages(tmp_path, _tensor).load(0).image is not None


@pytest.mark.parametrize(("target", "error"), [("gone.png", "FileNotFound"), ("a.png", "OS")])
def test_a_link_to_nowhere_is_an_unreadable_image(tmp_path: Path, target: str, error: str) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / target)
    problem = FolderImages(tmp_path, _tensor).load(0).problem
    assert problem.startswith(f"{tmp_path}/a.png is not a readable image: {error}Error")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("FailsToBuild", "cannot build .*stand_ins.FailsToBuild: ZeroDivisionError: no such luck"),
        ("Missing", "cannot import '.*stand_ins.Missing': AttributeError: .*'Missing'"),
    ],
)
def test_a_dataset_whose_code_fails_is_named_with_its_error(path: str, message: str) -> None:
    with pytest.raises(LightsaeError, match=f"^data.dataset: {message}"):
        load_images(DataOptions(dataset=f"{STAND_INS}.{path}"), nn.Identity())


IMAGE = torch.zeros(3, 4, 4)


@pytest.mark.parametrize(
    ("items", "says"),
    [
        (
            [{"image": "cat.png"}],
            "item 0 of listed is a dict, expected a PIL image, a tensor or a ",
        ),
        ([np.zeros((4, 4))], "item 0 of listed is a ndarray, expected a PIL image, a tensor"),
        ([(IMAGE,)], "item 0 of listed is a tuple (Tensor), expected (image, label)"),
        ([(4, IMAGE)], "item 0 of listed has label tensor"),
        ([(IMAGE, 0), (IMAGE, 0.5)], "item 1 of listed has label 0.5, expected an integer"),
        ([(IMAGE, 1), (IMAGE, None)], "item 1 of listed has label None, expected an integer"),
        ([(IMAGE, 0), IMAGE], "item 1 of listed is a Tensor, expected (image, label)"),
        ([IMAGE, (IMAGE, 0)], "item 1 of listed is a tuple (Tensor, int), expected a PIL image"),
    ],
    ids=["dict", "array", "one", "swapped", "float", "none", "unlabelled", "labelled"],
)
def test_an_item_that_is_no_image_is_named(items: list[Any], says: str) -> None:
    images = DatasetImages(items, _tensor, "listed")
    with pytest.raises(LightsaeError, match=f"^{re.escape(says)}"):
        for position in range(len(items)):
            images.load(position)


@pytest.mark.parametrize("label", [2, np.int64(2), torch.tensor(2), np.array(2)])
def test_a_label_is_any_integer(label: Any) -> None:
    assert DatasetImages([(IMAGE, label)], _tensor, "listed").load(0).label == 2


def test_an_error_in_a_dataset_names_the_item() -> None:
    images = DatasetImages({0: IMAGE, 2: IMAGE, 3: IMAGE}, _tensor, "listed")
    assert images.load(1).problem == "item 1 of listed is unreadable: KeyError: 1"


def test_an_unreadable_first_item_does_not_hide_the_labels() -> None:
    images = DatasetImages(Noise(4, bad=(0, 1)), _tensor, "noise")
    assert images.has_labels
    assert "item 0 of noise is unreadable" in images.load(0).problem
    assert images.load(3).label == 3


def test_a_dataset_without_a_length_is_named() -> None:
    with pytest.raises(LightsaeError, match=r"^data: stream gives no length: TypeError: .*len"):
        DatasetImages(iter([IMAGE]), _tensor, "stream")


def test_a_class_of_a_dataset_that_is_a_hidden_folder_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Noise, "classes", (".ipynb_checkpoints", "cat", "dog", "owl"))
    images = DatasetImages(Noise(4), _tensor, "noise")
    assert images.notes == ["noise: classes that are hidden folders: .ipynb_checkpoints"]
    assert DatasetImages(Noise(4), _tensor, "noise", labels=False).notes == []


def test_classes_that_are_no_names_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "classes", 4)
    with pytest.raises(LightsaeError, match=r"^data: classes of noise is 4, expected a list of"):
        DatasetImages(Noise(4), _tensor, "noise")


@pytest.mark.parametrize(
    ("original", "is_"),
    [([0, 0, 1], r"int64 \[3\]"), ([0.0] * 4, r"float64 \[4\]"), ([[0]] * 4, r"int64 \[4, 1\]")],
)
def test_an_original_index_that_does_not_fit_is_told(original: Any, is_: str) -> None:
    dataset = Noise(4)
    dataset.original_index = original
    message = f"original_index of noise is {is_}, expected integers .4., one per item"
    with pytest.raises(LightsaeError, match=message):
        DatasetImages(dataset, _tensor, "noise")
