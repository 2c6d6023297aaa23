from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightsae.activations.images import (
    DataOptions,
    DatasetImages,
    FolderImages,
    Item,
    collate,
    load_images,
)
from lightsae.errors import LightsaeError
from tests.activations.stand_ins import Noise

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


@pytest.mark.parametrize("cut", [0, 5, 300])
def test_an_unreadable_image_is_named(tmp_path: Path, cut: int) -> None:
    _save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:cut])
    item = FolderImages(tmp_path, _tensor).load(0)
    assert item.image is None
    assert item.problem.startswith(f"{tmp_path}/a.png is not a readable image: ")


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
    module = timm.create_model("vit_tiny_patch16_224", in_chans=1, **small)
    module.pretrained_cfg = {**module.pretrained_cfg, "input_size": (1, 16, 16)}
    images, settings = load_images(DataOptions(folder=str(tmp_path), crop=1.0), module)
    assert settings["mean"] == [0.5]
    assert settings["crop_pct"] == 1.0
    assert images.load(0).image.shape == (1, 16, 16)  # type: ignore[union-attr]


def test_one_source_of_images_is_given() -> None:
    for options in (DataOptions(), DataOptions(folder="a", dataset="b")):
        with pytest.raises(LightsaeError, match="give either folder or dataset"):
            load_images(options, nn.Identity())


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
    assert item.problem == "item 2 of noise is unreadable: broken file"


def test_images_of_different_shapes_are_an_error() -> None:
    items = [(i, Item(torch.zeros(3, 4 + i, 4), None, "")) for i in range(2)]
    with pytest.raises(LightsaeError, match="images have different shapes"):
        collate(items)
