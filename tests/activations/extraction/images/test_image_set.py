"""Datasets as sources of images, and the options that choose a source."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightsae.activations import DataOptions
from lightsae.activations.extraction.images.image_set import (
    DatasetImages,
    load_images,
)
from lightsae.errors import LightsaeError
from tests.activations.stand_ins import Noise

from .pictures import STAND_INS, as_tensor


def test_items_of_a_dataset_are_taken_without_labels_where_that_is_asked_for() -> None:
    for items in ([(IMAGE, "cat"), (IMAGE, None)], [IMAGE, IMAGE]):
        images = DatasetImages(items, as_tensor, "listed", labels=False)
        assert not images.has_labels
        assert images.classes == []
        assert [images.load(i).label for i in range(2)] == [None] * 2
        assert images.load(1).image is not None


def test_a_key_of_labels_where_none_are_wanted_is_refused() -> None:
    says = "^data.label_key is 'y' and data.labels is false: give one of them$"
    with pytest.raises(LightsaeError, match=says):
        load_images(DataOptions(arrays="a", label_key="y", labels=False), nn.Identity())


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
        DatasetImages(Noise(0), as_tensor, "noise")


class _Pictures(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> Any:
        return Image.new("L", (4, 4), i)


def test_pil_images_of_a_dataset_are_prepared() -> None:
    images = DatasetImages(_Pictures(), as_tensor, "pictures")
    assert not images.has_labels
    item = images.load(1)
    assert item.label is None
    assert item.image is not None
    assert item.image.unique().tolist() == [1]


def test_an_unreadable_item_is_named() -> None:
    item = DatasetImages(Noise(4, bad=(2,)), as_tensor, "noise").load(2)
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
    images = DatasetImages(items, as_tensor, "listed")
    with pytest.raises(LightsaeError, match=f"^{re.escape(says)}"):
        for position in range(len(items)):
            images.load(position)


@pytest.mark.parametrize("label", [2, np.int64(2), torch.tensor(2), np.array(2)])
def test_a_label_is_any_integer(label: Any) -> None:
    assert DatasetImages([(IMAGE, label)], as_tensor, "listed").load(0).label == 2


def test_an_error_in_a_dataset_names_the_item() -> None:
    images = DatasetImages({0: IMAGE, 2: IMAGE, 3: IMAGE}, as_tensor, "listed")
    assert images.load(1).problem == "item 1 of listed is unreadable: KeyError: 1"


def test_an_unreadable_first_item_does_not_hide_the_labels() -> None:
    images = DatasetImages(Noise(4, bad=(0, 1)), as_tensor, "noise")
    assert images.has_labels
    assert "item 0 of noise is unreadable" in images.load(0).problem
    assert images.load(3).label == 3


def test_a_dataset_without_a_length_is_named() -> None:
    with pytest.raises(LightsaeError, match=r"^data: stream gives no length: TypeError: .*len"):
        DatasetImages(iter([IMAGE]), as_tensor, "stream")


def test_a_class_of_a_dataset_that_is_a_hidden_folder_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Noise, "classes", (".ipynb_checkpoints", "cat", "dog", "owl"))
    images = DatasetImages(Noise(4), as_tensor, "noise")
    assert images.notes == ["noise: classes that are hidden folders: .ipynb_checkpoints"]
    assert DatasetImages(Noise(4), as_tensor, "noise", labels=False).notes == []


def test_classes_that_are_no_names_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "classes", 4)
    with pytest.raises(LightsaeError, match=r"^data: classes of noise is 4, expected a list of"):
        DatasetImages(Noise(4), as_tensor, "noise")


@pytest.mark.parametrize(
    ("original", "is_"),
    [([0, 0, 1], r"int64 \[3\]"), ([0.0] * 4, r"float64 \[4\]"), ([[0]] * 4, r"int64 \[4, 1\]")],
)
def test_an_original_index_that_does_not_fit_is_told(original: Any, is_: str) -> None:
    dataset = Noise(4)
    dataset.original_index = original
    message = f"original_index of noise is {is_}, expected integers .4., one per item"
    with pytest.raises(LightsaeError, match=message):
        DatasetImages(dataset, as_tensor, "noise")
