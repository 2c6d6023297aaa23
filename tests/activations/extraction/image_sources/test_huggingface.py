import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightsae.activations import DataOptions
from lightsae.activations.extraction.image_sources import HuggingFace
from lightsae.activations.extraction.images.image_set import load_images
from lightsae.errors import LightsaeError

datasets = pytest.importorskip("datasets")

OWN: dict[str, Any] = {"size": 16, "mean": [0.0] * 3, "std": [1.0] * 3}


def _rows(seed: int = 0, **columns: Any) -> Any:
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 255, (6, 20, 30, 3), dtype=np.uint8)
    kinds = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])}
    kinds = {name: datasets.Value("int64") for name in columns} | kinds
    values = {"picture": [Image.fromarray(p) for p in pixels], "kind": [0, 1] * 3, **columns}
    return datasets.Dataset.from_dict(values, features=datasets.Features(kinds))


@pytest.fixture
def saved(tmp_path: Path) -> str:
    _rows(number=list(range(6))).save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


def test_images_and_labels_of_a_saved_dataset(saved: str) -> None:
    images, _ = load_images(DataOptions(huggingface=saved, **OWN), nn.Identity())
    assert len(images) == 6
    assert images.classes == ["cat", "dog"]
    assert [images.load(i).label for i in range(6)] == [0, 1] * 3
    item = images.load(3)
    assert item.image is not None
    assert item.image.shape == (3, 16, 16)
    assert not torch.equal(item.image, images.load(2).image)  # type: ignore[arg-type]
    assert images.original_index.tolist() == list(range(6))


def test_columns_by_name(saved: str) -> None:
    rows = HuggingFace(saved, image="picture", label="number")
    assert [rows[i][1] for i in range(6)] == list(range(6))
    assert rows.classes == []


def test_a_dataset_by_name_is_loaded_with_its_arguments(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/2.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(path)
    options = DataOptions(
        huggingface="imagefolder",
        arguments={"data_dir": str(tmp_path / "photos"), "cache_dir": str(tmp_path / "cache")},
        **OWN,
    )
    images, _ = load_images(options, nn.Identity())
    assert images.classes == ["cat", "dog"]
    assert images.load(1).label == 1


def test_rows_without_a_label_are_told_at_once(tmp_path: Path) -> None:
    folder = str(tmp_path / "some")
    _rows(kind=[None, 0, 1, 0, 1, 0]).save_to_disk(folder)
    says = "^data.label_key: .*some: kind is None in some rows, expected an integer; data.l"
    with pytest.raises(LightsaeError, match=says):
        HuggingFace(folder)


@pytest.mark.parametrize("split", [None, "train", "all"])
def test_rows_that_come_one_after_another_are_refused(tmp_path: Path, split: str | None) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "photos" / "cat" / "1.png")
    arguments = {"data_dir": f"{tmp_path}/photos", "cache_dir": f"{tmp_path}/cache"}
    arguments |= {"streaming": True} | ({"split": "train"} if split == "all" else {})
    says = "^data.arguments: imagefolder is a stream, expected rows by number: leave streaming out$"
    with pytest.raises(LightsaeError, match=says):
        HuggingFace("imagefolder", split if split == "train" else None, arguments=arguments)


def test_several_splits_at_once_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "photos" / "cat" / "1.png")
    arguments = {"data_dir": f"{tmp_path}/photos", "cache_dir": f"{tmp_path}/cache"}
    with pytest.raises(LightsaeError, match=r"^data.arguments: imagefolder gives a list, expected"):
        HuggingFace("imagefolder", arguments={**arguments, "split": ["train", "train"]})


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_rows_that_were_saved_in_another_format_are_images(tmp_path: Path, kind: str) -> None:
    folder = str(tmp_path / "saved")
    _rows().with_format(kind).save_to_disk(folder)
    images, _ = load_images(DataOptions(huggingface=folder, **OWN), nn.Identity())
    item = images.load(3)
    assert item.label == 1
    assert item.image is not None
    assert item.image.shape == (3, 16, 16)


def test_images_that_are_not_decoded_are_images(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    _rows().cast_column("picture", datasets.Image(decode=False)).save_to_disk(folder)
    images, _ = load_images(DataOptions(huggingface=folder, **OWN), nn.Identity())
    assert images.load(0).image.shape == (3, 16, 16)  # type: ignore[union-attr]


def test_a_split_is_one_of_those_there_are(tmp_path: Path) -> None:
    folder = str(tmp_path / "both")
    datasets.DatasetDict({"train": _rows(0), "test": _rows(1)}).save_to_disk(folder)
    train, test = HuggingFace(folder, "train"), HuggingFace(folder, "test")
    assert train.fingerprint != test.fingerprint
    assert train[0][0].tobytes() != test[0][0].tobytes()
    for split, says in (
        (None, f"data.split is needed: {folder} has train, test"),
        ("trian", f"data.split: {folder} has no 'trian'; closest: 'train' (it has train, test)"),
    ):
        with pytest.raises(LightsaeError, match=f"^{re.escape(says)}$"):
            HuggingFace(folder, split)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image_key": "pictures"}, "data.image_key: SAVED has no column 'pictures'; closest: 'pi"),
        ({"label_key": "kinds"}, "data.label_key: SAVED has no column 'kinds'; closest: 'kind'"),
        ({"split": "train"}, "data.split is 'train': SAVED is one set without splits"),
        ({"arguments": {"a": 1}}, "data.arguments {'a': 1}: are for load_dataset, SAVED was saved"),
    ],
)
def test_what_a_dataset_does_not_have_is_told(saved: str, options: Any, says: str) -> None:
    with pytest.raises(LightsaeError, match=f"^{re.escape(says.replace('SAVED', saved))}"):
        load_images(DataOptions(huggingface=saved, **options, **OWN), nn.Identity())


def test_a_dataset_without_a_column_of_images_is_told(tmp_path: Path) -> None:
    folder = str(tmp_path / "words")
    datasets.Dataset.from_dict({"word": ["a"], "count": [1]}).save_to_disk(folder)
    says = f"^data.image_key is needed: {folder} has word, count, of which not exactly one is a col"
    with pytest.raises(LightsaeError, match=says):
        HuggingFace(folder)


def test_a_dataset_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=f"^data.huggingface: cannot open {tmp_path}/no: "):
        HuggingFace(f"{tmp_path}/no")


def test_other_rows_have_another_fingerprint(saved: str, tmp_path: Path) -> None:
    before = HuggingFace(saved).fingerprint
    assert HuggingFace(saved).fingerprint == before
    _rows(seed=1, number=list(range(6))).save_to_disk(tmp_path / "other")
    assert HuggingFace(str(tmp_path / "other")).fingerprint != before
    assert HuggingFace(saved, label="number").fingerprint != before


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    folder = str(tmp_path / "bad")
    kinds = datasets.Features({"image": datasets.Image()})
    broken = {"image": [{"bytes": b"no image", "path": None}]}
    datasets.Dataset.from_dict(broken, features=kinds).save_to_disk(folder)
    images, _ = load_images(DataOptions(huggingface=folder, **OWN), nn.Identity())
    assert images.load(0).problem.startswith(f"item 0 of {folder} is unreadable: Unidentified")


def test_labels_that_are_all_unknown_are_none(tmp_path: Path) -> None:
    folder = str(tmp_path / "test")
    _rows(kind=[-1] * 6).save_to_disk(folder)
    images, _ = load_images(DataOptions(huggingface=folder, **OWN), nn.Identity())
    assert not images.has_labels
    assert images.classes == []
    assert images.load(3).image is not None
    assert images.load(3).label is None


def test_some_labels_that_are_unknown_are_told_at_once(tmp_path: Path) -> None:
    folder = str(tmp_path / "some")
    _rows(kind=[-1, 0, 1, 0, 1, 0]).save_to_disk(folder)
    says = (
        "^data.label_key: .*some: kind has -1 to 1, expected 0 to 1; data.labels false takes none$"
    )
    with pytest.raises(LightsaeError, match=says):
        HuggingFace(folder)


def test_labels_that_do_not_fit_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = str(tmp_path / "some")
    _rows(kind=[-1, 0, 1, 0, 1, 0]).save_to_disk(folder)
    images, _ = load_images(DataOptions(huggingface=folder, labels=False, **OWN), nn.Identity())
    assert not images.has_labels
    assert images.classes == []
    assert images.load(0).image is not None


def test_a_row_without_an_image_is_unreadable(tmp_path: Path) -> None:
    folder = str(tmp_path / "gaps")
    pictures = [None, *(Image.new("RGB", (8, 8)) for _ in range(5))]
    _rows(picture=pictures).save_to_disk(folder)
    images, _ = load_images(DataOptions(huggingface=folder, **OWN), nn.Identity())
    says = f"item 0 of {folder} is unreadable: ValueError: its picture is None, expected an image"
    assert images.load(0).problem == says
    assert images.load(1).label == 1
