import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lightsae.activations import Manifest, ShardSet, ShardWriter
from lightsae.activations.loading.label_mixing import label_chi_square
from lightsae.activations.shards.writer import ShardWriter as Writer
from lightsae.activations.tools.row_copy import Rows
from lightsae.activations.tools.shuffle import shuffle
from lightsae.errors import LightsaeError

Shards = Callable[..., Path]


def columns(folder: Path) -> np.ndarray:
    shards = ShardSet(folder)
    found = np.concatenate([shards.read_index(chunk) for chunk in range(len(shards.chunks))], 1)
    shards.close()
    return found


@pytest.mark.parametrize("buffer_bytes", [1 << 30, 3000])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_row_comes_once_with_what_belongs_to_it(
    make_shards: Shards, all_rows: Callable[[Path], np.ndarray], dtype: str, buffer_bytes: int
) -> None:
    folder = make_shards(rows=300, tokens=3, dtype=dtype)
    out = folder.parent / "shuffled"
    shuffle(str(folder), str(out), buffer_bytes=buffer_bytes, rows_per_shard=100)
    before, after = columns(folder), columns(out)
    order = np.lexsort(after[1::-1])
    assert not np.array_equal(before, after)
    assert np.array_equal(before, after[:, order])
    assert np.array_equal(all_rows(folder), all_rows(out)[order])
    assert sorted(path.name for path in out.iterdir())[0] == "manifest.json"


def test_the_same_seed_gives_the_same_order(make_shards: Shards) -> None:
    folder = make_shards()
    found = []
    for number, seed in enumerate((0, 0, 1)):
        out = folder.parent / f"out-{number}"
        shuffle(str(folder), str(out), seed=seed)
        found.append(columns(out))
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_interrupted_it_goes_on_and_ends_the_same(
    make_shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_shards(rows=300)
    whole, cut = folder.parent / "whole", folder.parent / "cut"
    options = {"buffer_bytes": 3000, "rows_per_shard": 50}
    shuffle(str(folder), str(whole), **options)
    write, calls = Writer.write, iter(range(6))

    def once(self: Writer, *rows: Rows, **progress: object) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        write(self, *rows, **progress)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", once)
        with pytest.raises(KeyboardInterrupt):
            shuffle(str(folder), str(cut), **options)
    assert not Manifest.load(cut).complete
    assert not (cut / ".buckets").exists()
    shuffle(str(folder), str(cut), **options)
    assert Manifest.load(cut).digest() == Manifest.load(whole).digest()


def test_memory_is_bounded(tmp_path: Path) -> None:
    folder, bound = tmp_path / "long", 4 << 20
    with ShardWriter(folder, Manifest(d_in=256, dtype="float32"), chunk_rows=16) as writer:
        for start in range(0, 40_960, 1024):
            writer.write(torch.randn(1024, 256), torch.arange(start, start + 1024))
    tracemalloc.start()
    shuffle(str(folder), str(tmp_path / "out"), buffer_bytes=bound, rows_per_shard=1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The writer's chunk in float64 comes on top of the rows.
    assert peak < 2 * bound < 0.25 * Manifest.load(folder).rows * 256 * 4


def test_a_set_in_the_order_of_its_classes_is_mixed(tmp_path: Path) -> None:
    label = torch.arange(20_000) // 2000
    manifest = Manifest(d_in=2, dtype="float32", has_labels=True)
    with ShardWriter(tmp_path / "s", manifest) as writer:
        writer.write(torch.zeros(20_000, 2), torch.arange(20_000), label=label)
    shuffle(str(tmp_path / "s"), str(tmp_path / "out"))
    figures = []
    for name in ("s", "out"):
        shards = ShardSet(tmp_path / name)
        figures.append(label_chi_square(shards, buffer_rows=1000))
        shards.close()
    assert figures[0] > 10
    assert figures[1] < 1.5


@pytest.fixture
def refused(make_shards: Shards) -> Iterator[Callable[..., None]]:
    folder = make_shards()

    def check(says: str, **options: object) -> None:
        out = str(options.pop("out", folder.parent / "out"))
        with pytest.raises(LightsaeError, match=says):
            shuffle(str(folder), out, **options)  # type: ignore[arg-type]

    yield check


def test_what_cannot_be_done_is_refused(refused: Callable[..., None]) -> None:
    refused("^seed is -1, expected at least 0$", seed=-1)
    refused("^buffer_bytes is 1, expected at least 22 for 5600 bytes", buffer_bytes=1)
    refused("^out is '', expected another folder than", out="")


def test_another_buffer_is_not_mistaken_for_going_on(make_shards: Shards) -> None:
    folder = make_shards()
    out = folder.parent / "out"
    shuffle(str(folder), str(out), buffer_bytes=3000)
    says = "out: is complete and has buffer_bytes = 3000, this command has 4000: use another folder"
    with pytest.raises(LightsaeError, match=says):
        shuffle(str(folder), str(out), buffer_bytes=4000)


def test_a_folder_is_not_shuffled_into_itself(make_shards: Shards) -> None:
    folder = make_shards()
    with pytest.raises(LightsaeError, match="expected another folder than"):
        shuffle(str(folder), f"{folder}/../{folder.name}")
    assert Manifest.load(folder).complete
