from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightsae.activations.extraction.image_batches import collate, image_batches
from lightsae.activations.extraction.images import DatasetImages, FolderImages, ImageSet, Item
from lightsae.errors import LightsaeError
from tests.activations.stand_ins import Noise


def _tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _folder(path: Path) -> ImageSet:
    for number in range(11):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        (path / str(number % 3)).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path / str(number % 3) / f"{number}.png")
    (path / "1" / "4.png").write_bytes(b"broken")
    return FolderImages(path, _tensor)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "dataset"])
def test_workers_read_what_this_process_reads(tmp_path: Path, kind: str) -> None:
    noise = DatasetImages(Noise(11, bad=(4,)), _tensor, "noise")
    images = _folder(tmp_path) if kind == "folder" else noise
    order = np.random.default_rng(0).permutation(11)
    alone, helped = (list(image_batches(images, order, 3, workers)) for workers in (0, 2))
    assert [len(batch.positions) + len(batch.problems) for batch in alone] == [3, 3, 3, 2]
    assert sum(len(batch.problems) for batch in alone) == 1
    for one, other in zip(alone, helped, strict=True):
        assert (one.positions, one.problems) == (other.positions, other.problems)
        for first, second in ((one.images, other.images), (one.labels, other.labels)):
            assert first is not None
            assert second is not None
            assert torch.equal(first, second)


class _Dies:
    """A dataset that takes its process with it."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, position: int) -> torch.Tensor:
        if position == 3:
            import os

            os._exit(9)
        return torch.zeros(3, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ([(torch.zeros(1), 0)] * 3 + [{"image": 0}], "item 3 of data is a dict, expected (image, "),
        (_Dies(), "data: a process that reads images died: RuntimeError: DataLoader worker (pid"),
    ],
    ids=["wrong item", "killed"],
)
def test_what_stops_a_worker_is_one_line(dataset: Any, says: str) -> None:
    images = DatasetImages(dataset, _tensor, "data")
    with pytest.raises(LightsaeError) as caught:
        list(image_batches(images, np.arange(4), 2, workers=2))
    message = str(caught.value)
    assert message.startswith(says)
    assert "\n" not in message
    assert "Traceback" not in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "other", [torch.zeros(3, 5, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)], ids=["shape", "dtype"]
)
def test_images_that_differ_are_an_error(other: torch.Tensor) -> None:
    items = [(i, Item(image, None, "")) for i, image in enumerate((torch.zeros(3, 4, 4), other))]
    with pytest.raises(LightsaeError, match=r"images differ, expected one shape and dtype: .*\["):
        collate(items)


def test_no_order_is_no_batch() -> None:
    assert list(image_batches(DatasetImages(Noise(4), _tensor, "noise"), np.arange(0), 2, 0)) == []
