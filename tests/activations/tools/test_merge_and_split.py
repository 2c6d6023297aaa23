from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightsae.activations import Manifest, ShardSet
from lightsae.activations.tools.merge import merge
from lightsae.activations.tools.split import split
from lightsae.errors import LightsaeError

Shards = Callable[..., Path]


def samples(folder: Path) -> list[int]:
    shards = ShardSet(folder)
    found = [shards.read_index(chunk)[0] for chunk in range(len(shards.chunks))]
    shards.close()
    return [int(sample) for part in found for sample in part]


def of_images(folder: Path, name: str) -> None:
    manifest = Manifest.load(folder)
    replace(manifest, settings={**manifest.settings, "data": name}).save(folder)


def test_rows_of_all_folders_come_after_each_other(
    make_shards: Shards, all_rows: Callable[[Path], np.ndarray]
) -> None:
    folders = [make_shards(rows=rows, name=str(rows), tokens=2) for rows in (30, 50, 20)]
    out = folders[0].parent / "out"
    merge([str(folder) for folder in folders], str(out))
    assert np.array_equal(all_rows(out), np.concatenate([all_rows(f) for f in folders]))
    assert sorted(set(samples(out))) == list(range(50))
    assert samples(out)[30:32] == [15, 15]


def test_samples_of_the_same_images_stay(make_shards: Shards) -> None:
    folders = [make_shards(rows=20, name=name) for name in ("one", "other")]
    for folder in folders:
        of_images(folder, "the same")
    out = folders[0].parent / "out"
    merge([str(folder) for folder in folders], str(out))
    assert samples(out) == [*range(20), *range(20)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layer": "blocks.2"}, "was begun with layer = 'blocks.1', this .* 'blocks.2'"),
        ({"weights_hash": "f"}, "was begun with weights_hash = ''"),
        ({"tokens": "patch"}, "was begun with tokens = ''"),
    ],
)
def test_folders_that_differ_are_refused(
    make_shards: Shards, change: dict[str, str], says: str
) -> None:
    folders = [make_shards(rows=20, name=name) for name in ("one", "other")]
    replace(Manifest.load(folders[1]), **change).save(folders[1])  # type: ignore[arg-type]
    with pytest.raises(LightsaeError, match=says):
        merge([str(folder) for folder in folders], str(folders[0].parent / "out"))
    assert not (folders[0].parent / "out").exists()


def test_one_folder_is_nothing_to_merge(make_shards: Shards) -> None:
    with pytest.raises(LightsaeError, match="expected two or more"):
        merge([str(make_shards())], "out")


def test_a_merge_goes_on_where_it_was(make_shards: Shards) -> None:
    folders = [make_shards(rows=40, name=name) for name in ("one", "other")]
    words = [str(folder) for folder in folders]
    whole, cut = folders[0].parent / "whole", folders[0].parent / "cut"
    merge(words, str(whole), rows_per_shard=16)
    shard = folders[1] / "shard-00000.h5"
    kept = shard.read_bytes()
    damaged = bytearray(kept)
    damaged[kept.index(np.float32(17).tobytes())] ^= 1
    shard.write_bytes(bytes(damaged))
    with pytest.raises(LightsaeError, match="were altered"):
        merge(words, str(cut), rows_per_shard=16)
    assert not Manifest.load(cut).complete
    shard.write_bytes(kept)
    merge(words, str(cut), rows_per_shard=16)
    assert Manifest.load(cut).digest() == Manifest.load(whole).digest()


def test_all_rows_of_an_image_go_to_one_part(make_shards: Shards) -> None:
    folder = make_shards(rows=200, tokens=4)
    out = folder.parent / "parts"
    split(str(folder), str(out), [0.5, 0.3, 0.2])
    parts = [samples(out / str(part)) for part in range(3)]
    assert [len(set(part)) for part in parts] == [25, 15, 10]
    assert sorted(sample for part in parts for sample in part) == samples(folder)


def test_the_seed_divides(make_shards: Shards) -> None:
    folder = make_shards()
    for seed in (0, 1):
        split(str(folder), str(folder.parent / f"out-{seed}"), [0.5, 0.5], seed=seed)
    first, second = (set(samples(folder.parent / f"out-{seed}" / "0")) for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize(
    ("fractions", "says"),
    [
        ([1.0], "expected two or more positive numbers that add up to 1"),
        ([0.5, 0.4], "add up to 1"),
        ([1.5, -0.5], "positive"),
        ([0.999, 0.001], "a part of 100 images would have none"),
    ],
)
def test_fractions_that_do_not_divide_are_refused(
    make_shards: Shards, fractions: list[float], says: str
) -> None:
    folder = make_shards()
    with pytest.raises(LightsaeError, match=says):
        split(str(folder), str(folder.parent / "out"), fractions)
