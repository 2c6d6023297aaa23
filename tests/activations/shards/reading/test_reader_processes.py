"""Processes that read: the same rows, the same errors, and none of them is left behind."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightsae.activations import ActivationLoader, Manifest, ShardSet, ShardWriter
from lightsae.activations.loading.splits import count_rows, distinct_samples, split_rule
from lightsae.activations.shards.checked_read import aligned
from lightsae.activations.shards.reading import shard_set
from lightsae.activations.shards.reading.reader_processes import Located, ReaderProcesses
from lightsae.activations.shards.reading.row_source import Piece
from lightsae.errors import LightsaeError

from ...loading.test_gpu_prefetch import LateCopies
from .test_reader import forge_nan

MakeShards = Callable[..., Path]


@pytest.fixture(autouse=True)
def every_set_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_set, "_WORTH_PROCESSES", 0)


def loader_of(shards: ShardSet, split: Any = "train", **options: Any) -> ActivationLoader:
    rule = split_rule(distinct_samples(shards), val_fraction=0.2, test_fraction=0.1, seed=0)
    rows = count_rows(shards, rule, (split,))[split]
    options = {"batch_size": 7, "buffer_rows": 40, "dtype": None, **options}
    return ActivationLoader(shards, rule, split, rows, **options)


def delivered(loader: ActivationLoader) -> list[tuple[list[list[float]], list[int]]]:
    return [(batch.activations.tolist(), batch.sample_index.tolist()) for batch in loader]


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if "checked_read.py" in " ".join(child.cmdline())
    ]


def started(number: int) -> list[psutil.Process]:
    """The children, once all have a command line: a process has none for a moment as it starts."""
    end = time.monotonic() + 10
    while len(found := children()) < number and time.monotonic() < end:
        time.sleep(0.01)
    assert len(found) == number
    return found


@pytest.mark.parametrize(
    ("split", "dtype"), [("train", "float16"), ("validation", "bfloat16"), ("all", "float32")]
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_they_deliver_what_one_thread_does(
    make_shards: MakeShards, split: str, dtype: str, shuffle: bool
) -> None:
    shards = ShardSet(make_shards(tokens=3, dtype=dtype))
    options = {"split": split, "shuffle": shuffle}
    plain = loader_of(shards, **options, readers=0)
    expected = [delivered(plain) for _ in range(2)]
    assert not children()
    loader = loader_of(shards, **options, readers=3)
    started(3)
    assert [delivered(loader) for _ in range(2)] == expected
    shards.close()
    assert not children()


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 90), st.floats(0, 1, exclude_max=True))
def test_ranks_share_every_row_and_resume(
    tmp_path_factory: pytest.TempPathFactory,
    world_size: int,
    readers: int,
    buffer_rows: int,
    progress: float,
) -> None:
    shards = ShardSet(_ragged(tmp_path_factory))
    seen: list[int] = []
    for rank in range(world_size):
        options = {"rank": rank, "world_size": world_size, "buffer_rows": buffer_rows}
        whole = delivered(loader_of(shards, **options, readers=readers))
        assert whole == delivered(loader_of(shards, **options, readers=0))
        seen += [sample for _, samples in whole for sample in samples]
        done = int(progress * len(whole))
        resumed = loader_of(shards, **options, readers=readers)
        resumed.load_state_dict({"epoch": 0, "batches": done})
        assert delivered(resumed) == whole[done:]
    assert len(seen) == len(set(seen)) == 60
    shards.close()


def _ragged(factory: pytest.TempPathFactory) -> Path:
    """Rows of 86 samples in shards of unequal length."""
    folder = factory.mktemp("ragged")
    manifest = Manifest(d_in=3, dtype="float32")
    with ShardWriter(folder, manifest, rows_per_shard=30, chunk_rows=8) as writer:
        for part in torch.arange(86).split(13):
            writer.write(torch.randn(len(part), 3), part)
    return folder


def test_a_batch_stays_as_it_was_delivered(make_shards: MakeShards) -> None:
    shards = ShardSet(make_shards())
    batches = list(loader_of(shards, "all", buffer_rows=16))
    assert sorted(int(row) for batch in batches for row in batch.activations[:, 0]) == [*range(100)]
    shards.close()


def test_two_loaders_take_turns(make_shards: MakeShards) -> None:
    shards = ShardSet(make_shards())
    expected = [delivered(loader_of(shards, split, readers=0)) for split in ("train", "all")]
    first, second = (loader_of(shards, split) for split in ("train", "all"))
    iterator = iter(first)
    begun = [next(iterator) for _ in range(3)]
    assert delivered(second) == expected[1]
    found = [*begun, *iterator]
    assert [(batch.activations.tolist(), batch.sample_index.tolist()) for batch in found] == (
        expected[0]
    )
    shards.close()


def test_a_device_copies_from_memory_that_processes_fill(make_shards: MakeShards) -> None:
    shards = ShardSet(make_shards())
    expected = delivered(loader_of(shards, "all", readers=0))
    copies = LateCopies()
    batches = list(loader_of(shards, "all", copies=copies))
    found = [(batch.activations.tolist(), batch.sample_index.tolist()) for batch in batches]
    assert found == expected
    assert copies.registered
    shards.close()


def test_an_epoch_left_early_writes_nothing_into_the_next(make_shards: MakeShards) -> None:
    shards = ShardSet(make_shards())
    plain, loader = loader_of(shards, "all", readers=0), loader_of(shards, "all")
    for _ in range(4):
        for one in (plain, loader):
            next(iter(one))
    assert delivered(loader) == delivered(plain)
    shards.close()


def test_altered_rows_are_named(make_shards: MakeShards) -> None:
    folder = make_shards()
    path = folder / "shard-00001.h5"
    shards = ShardSet(folder)
    content = bytearray(path.read_bytes())
    where = content.find(shards.read_activations([6])[0][0].tobytes())
    content[where] ^= 1
    path.write_bytes(content)
    shards = ShardSet(folder)
    with pytest.raises(LightsaeError, match=r"shard-00001.h5: rows 8-15 were altered: the hash"):
        delivered(loader_of(shards, "all"))
    shards.close()


def test_a_shard_cut_short_while_it_is_read_is_named(make_shards: MakeShards) -> None:
    folder = make_shards()
    shards = ShardSet(folder)
    loader = loader_of(shards, "all", shuffle=False, buffer_rows=8)
    iterator = iter(loader)
    next(iterator)
    os.truncate(folder / "shard-00002.h5", 2500)
    with pytest.raises(LightsaeError, match=r"shard-00002.h5: rows \d+-\d+ cannot be read"):
        list(iterator)
    shards.close()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_value_that_is_not_finite_is_named(make_shards: MakeShards, dtype: str) -> None:
    folder = make_shards(dtype=dtype)
    forge_nan(folder, folder / "shard-00001.h5", row=21, column=3)
    shards = ShardSet(folder)
    with pytest.raises(LightsaeError, match=r"shard-00001.h5: row 21 column 3 is nan"):
        delivered(loader_of(shards, "all"))
    shards.close()


@pytest.mark.parametrize("readers", [0, 2])
def test_bytes_of_a_known_hash_are_scanned_once(make_shards: MakeShards, readers: int) -> None:
    shards = ShardSet(make_shards())
    loader = loader_of(shards, "all", readers=readers)
    assert not shards._scanned.any()
    delivered(loader)
    assert shards._scanned.all()
    unchecked = ShardSet(shards.folder, verify=False)
    delivered(loader_of(unchecked, "all", readers=readers))
    assert not unchecked._scanned.any()
    shards.close()
    unchecked.close()


def test_this_process_reads_for_one_that_was_killed(make_shards: MakeShards) -> None:
    shards = ShardSet(make_shards())
    expected = delivered(loader_of(shards, "all", readers=0))
    loader = loader_of(shards, "all", readers=2)
    for child, said in zip(started(2), ("first", "second"), strict=True):
        loader.set_epoch(0)
        iterator = iter(loader)
        found = [next(iterator)]
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        with pytest.warns(UserWarning, match="a process that reads shards ended"):
            found += list(iterator)
            loader.set_epoch(0)
            assert delivered(loader) == expected, said
    assert delivered(loader) != expected
    shards.close()


def test_they_end_with_what_they_read_for(make_shards: MakeShards) -> None:
    loader = loader_of(ShardSet(make_shards()))
    delivered(loader)
    assert children()
    del loader
    gc.collect()
    assert not children()


@pytest.mark.slow
def test_they_end_with_a_parent_that_is_killed(make_shards: MakeShards) -> None:
    script = (
        "import sys, time, torch\n"
        "from lightsae.activations.shards.reading import shard_set\n"
        "from lightsae.activations import ShardSet\n"
        "shard_set._WORTH_PROCESSES = 0\n"
        f"shards = ShardSet({str(make_shards())!r})\n"
        "shards.allocator(2)\n"
        "print(*[each.process.pid for each in shards._processes._readers], flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    begun = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
    assert len(begun) == 2
    process.kill()
    process.wait()
    process.stdout.close()
    psutil.wait_procs(begun, timeout=20)
    assert not any(child.is_running() and child.status() != "zombie" for child in begun)


def test_memory_that_was_lent_outlives_them_and_is_given_back() -> None:
    readers = ReaderProcesses(1)
    pool = readers.allocate(1 << 12)
    assert readers.lent(pool) and not readers.lent(aligned(8))
    zeros = [Located("/dev/zero", 0, 2, None, True)] * 2
    pool[:] = 7
    pieces = [Piece(0, 3), Piece(1, np.array([0]))]
    assert readers.begin(pieces, zeros, pool, 2, "float16")() == []
    assert pool[:10].tolist() == [0, 0, 7, 7, 7, 7, 0, 0, 7, 7]
    readers.close()
    assert not readers.lent(pool)
    assert pool[8] == 7
    files = len(os.listdir("/proc/self/fd"))
    del pool
    assert len(os.listdir("/proc/self/fd")) < files


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    readers = ReaderProcesses(2)
    pool = readers.allocate(8)
    file = tmp_path / "file"
    file.write_bytes(bytes(4))
    where = [Located(str(file), 0, 4, None, True), Located(str(file), 2, 4, None, True)]
    where += [Located(str(tmp_path / "none"), 0, 4, None, True), Located(str(file), 0, 4, 1, True)]
    pieces = [Piece(chunk, 0) for chunk in range(4)]
    assert readers.begin(pieces, where, pool, 4, "float32")() == pieces[1:]
    readers.close()


def test_small_sets_are_read_by_threads(
    make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_set, "_WORTH_PROCESSES", 1 << 20)
    shards = ShardSet(make_shards())
    assert shards.allocator(2) is aligned
    assert not children()
    shards.close()
