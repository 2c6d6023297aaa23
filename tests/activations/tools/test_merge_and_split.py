from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightsae.activations import Manifest, ShardSet, ShardWriter
from lightsae.activations.shards import disk_budget
from lightsae.activations.tools import merge as merging
from lightsae.activations.tools.merge import merge
from lightsae.activations.tools.shuffle import shuffle
from lightsae.activations.tools.split import split
from lightsae.errors import LightsaeError

Shards = Callable[..., Path]


def samples(folder: Path) -> list[int]:
    shards = ShardSet(folder)
    found = [shards.read_index(chunk)[0] for chunk in range(len(shards.chunks))]
    shards.close()
    return [int(sample) for part in found for sample in part]


def test_rows_of_all_folders_come_after_each_other(
    make_shards: Shards, all_rows: Callable[[Path], np.ndarray]
) -> None:
    folders = [make_shards(rows=rows, name=str(rows), tokens=2) for rows in (30, 50, 20)]
    out = folders[0].parent / "out"
    merge([str(folder) for folder in folders], str(out))
    assert np.array_equal(all_rows(out), np.concatenate([all_rows(f) for f in folders]))
    assert sorted(set(samples(out))) == list(range(50))
    assert samples(out)[30:32] == [15, 15]


def tokens_of(folder: Path, sample: list[int], token: list[int]) -> str:
    manifest = Manifest(d_in=2, dtype="float32", settings={"data": "the same"})
    with ShardWriter(folder, manifest) as writer:
        writer.write(torch.zeros(len(sample), 2), torch.tensor(sample), torch.tensor(token))
    return str(folder)


def test_samples_of_the_same_images_stay(tmp_path: Path) -> None:
    one = tokens_of(tmp_path / "one", [3, 1, 5], [0, 0, 7])
    other = tokens_of(tmp_path / "other", [1, 3, 4], [1, -2, 7])
    merge([one, other], str(tmp_path / "out"))
    assert samples(tmp_path / "out") == [3, 1, 5, 1, 3, 4]


def samples_of(folder: Path, sample: list[int]) -> str:
    """A folder of images of its own."""
    manifest = Manifest(d_in=2, dtype="float32", settings={"data": folder.name})
    with ShardWriter(folder, manifest) as writer:
        writer.write(torch.zeros(len(sample), 2), torch.tensor(sample))
    return str(folder)


def test_samples_below_zero_fall_together_with_none(tmp_path: Path) -> None:
    folders = [samples_of(tmp_path / name, [-2, 0, 3]) for name in ("one", "two", "three")]
    merge(folders, str(tmp_path / "out"))
    assert samples(tmp_path / "out") == [-2, 0, 3, 4, 6, 9, 10, 12, 15]


def test_samples_that_int64_cannot_count_on_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    folders = [samples_of(tmp_path / name, [0, 2**62]) for name in ("one", "two")]
    with pytest.raises(LightsaeError, match=r"/two: sample 4611686018427387904 counted on from"):
        merge(folders, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compared_rows", [1, 1 << 24])
def test_a_row_of_the_same_images_comes_once(
    tmp_path: Path, compared_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_COMPARED_ROWS", compared_rows)
    folders = [
        tokens_of(tmp_path / "one", [3, 1, 5], [0, 0, 7]),
        tokens_of(tmp_path / "two", [2, 7], [0, 7]),
        tokens_of(tmp_path / "three", [1, 5, 6], [1, 7, 7]),
    ]
    with pytest.raises(LightsaeError, match=r"/one and .*/three both have token 7 of sample 5"):
        merge(folders, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_is_not_merged_with_itself(make_shards: Shards) -> None:
    folder = make_shards()
    shuffled = str(folder.parent / "shuffled")
    shuffle(str(folder), shuffled)
    for other in (str(folder), shuffled):
        with pytest.raises(LightsaeError, match="both have token 0 of sample 0"):
            merge([str(folder), other], str(folder.parent / "out"))


def test_images_of_parts_of_one_folder_stay(make_shards: Shards) -> None:
    folder = make_shards(rows=200, tokens=2)
    base = folder.parent
    shuffle(str(folder), str(base / "shuffled"))
    split(str(base / "shuffled"), str(base / "parts"), [0.4, 0.6])
    split(str(base / "parts/1"), str(base / "smaller"), [0.5, 0.5])
    parts = [base / "smaller/1", base / "parts/0", base / "smaller/0"]
    merge([str(part) for part in parts], str(base / "out"))
    assert samples(base / "out") == [sample for part in parts for sample in samples(part)]
    assert sorted(samples(base / "out")) == samples(folder)


@pytest.mark.parametrize("command", ["merge", "split"])
def test_chunks_stay_as_small_as_they_are(make_shards: Shards, command: str) -> None:
    folders = [
        make_shards(rows=rows, chunk_rows=chunk_rows, name=str(rows))
        for rows, chunk_rows in ((60, 8), (50, 4))
    ]
    out = folders[0].parent / "out"
    if command == "merge":
        merge([str(folder) for folder in folders], str(out))
    else:
        split(str(folders[1]), str(out), [0.5, 0.5])
        out /= "1"
    shards = ShardSet(out)
    assert shards.chunk_rows == 4
    assert set(shards.chunks[:-1, 2]) == {4}
    shards.close()


@pytest.mark.parametrize("command", ["merge", "split"])
def test_a_full_disk_is_told_before_anything_is_written(
    make_shards: Shards, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [str(make_shards(rows=rows, name=str(rows))) for rows in (60, 50)]
    out = Path(folders[0]).parent / "out"
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(disk_budget.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(LightsaeError, match=r"out: would take about .* more, there are 1.0 kB"):
        if command == "merge":
            merge(folders, str(out))
        else:
            split(folders[0], str(out), [0.5, 0.5])
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layer": "blocks.2"}, "/one has layer = 'blocks.1', .*/other has 'blocks.2': expected"),
        ({"weights_hash": "f"}, "/one has weights_hash = '', .*/other has 'f'"),
        ({"tokens": "patch"}, "/one has tokens = '', .*/other has 'patch'"),
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
    folders = [make_shards(rows=rows, name=str(rows)) for rows in (44, 40)]
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


@pytest.mark.parametrize(
    ("method", "calls"), [("write", 0), ("write", 5), ("finish", 0), ("finish", 1), ("finish", 2)]
)
def test_a_split_goes_on_wherever_it_stops(
    make_shards: Shards, monkeypatch: pytest.MonkeyPatch, method: str, calls: int
) -> None:
    folder = make_shards(rows=200)
    whole, cut = folder.parent / "whole", folder.parent / "cut"
    fractions = [0.5, 0.3, 0.2]
    split(str(folder), str(whole), fractions, rows_per_shard=16)
    done, left = getattr(ShardWriter, method), iter(range(calls))

    def stopped(self: ShardWriter, *words: object, **options: object) -> None:
        if next(left, None) is None:
            self.abort()  # As the end of a process would end its lock.
            raise KeyboardInterrupt
        done(self, *words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, method, stopped)
        with pytest.raises(KeyboardInterrupt):
            split(str(folder), str(cut), fractions, rows_per_shard=16)
    split(str(folder), str(cut), fractions, rows_per_shard=16)
    for part in ("0", "1", "2"):
        assert Manifest.load(cut / part).complete
        assert Manifest.load(cut / part).digest() == Manifest.load(whole / part).digest()


@pytest.mark.parametrize("command", ["merge", "split", "shuffle"])
def test_what_is_complete_is_told(make_shards: Shards, command: str) -> None:
    folders = [str(make_shards(rows=rows, name=str(rows))) for rows in (60, 50)]
    out = str(Path(folders[0]).parent / "out")
    for says in ("", "out: is complete already"):
        with pytest.raises(LightsaeError, match=says) if says else nullcontext():
            if command == "merge":
                merge(folders, out)
            elif command == "split":
                split(folders[0], out, [0.5, 0.5])
            else:
                shuffle(folders[0], out)


def test_a_part_of_another_split_is_refused(make_shards: Shards) -> None:
    folder = make_shards()
    out = folder.parent / "out"
    split(str(folder), str(out), [0.5, 0.5])
    says = "out/0: is complete and has split_seed = 0, this command has 1: use another folder"
    with pytest.raises(LightsaeError, match=says):
        split(str(folder), str(out), [0.5, 0.5], seed=1)


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
