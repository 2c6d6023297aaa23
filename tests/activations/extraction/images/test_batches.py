import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightsae.activations.extraction.images.batches import collate, image_batches
from lightsae.activations.extraction.images.image_set import (
    DatasetImages,
    FolderImages,
    ImageSet,
    Item,
)
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


def _no_room(*_: Any) -> None:
    raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no memory files")
def test_workers_need_no_room_in_dev_shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, order = _folder(tmp_path), np.arange(11)
    alone = list(image_batches(images, order, 3, workers=0))
    for name in ("_share_fd_cpu_", "_share_filename_cpu_"):
        monkeypatch.setattr(torch.UntypedStorage, name, _no_room)
    for one, other in zip(alone, image_batches(images, order, 3, workers=2), strict=True):
        assert torch.equal(one.images, other.images)  # type: ignore[arg-type]
        assert torch.equal(one.labels, other.labels)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no memory files")
def test_a_batch_that_memory_cannot_hold_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "posix_fallocate", full)
    images = DatasetImages([torch.zeros(3, 99, 99)], _tensor, "data")
    says = "^workers: no memory for a batch of images: OSError: .* Cannot allocate memory$"
    with pytest.raises(LightsaeError, match=says):
        list(image_batches(images, np.arange(1), 1, workers=1))


def test_processes_that_cannot_start_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
    says = "^workers is 2: the processes that read images cannot start: OSError: .*No space left"
    with pytest.raises(LightsaeError, match=says):
        image_batches(DatasetImages(Noise(4), _tensor, "noise"), np.arange(4), 2, workers=2)


class _Dies:
    """A dataset that takes its process with it."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, position: int) -> torch.Tensor:
        if position == 3:
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
