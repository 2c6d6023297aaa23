from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lightsae.activations import (
    ActivationDataModule,
    ActivationLoader,
    Manifest,
    ShardSet,
    ShardWriter,
)
from lightsae.activations.loading import label_mixing
from lightsae.activations.loading.label_mixing import label_chi_square
from lightsae.activations.loading.splits import count_rows, distinct_samples, split_rule
from lightsae.activations.tools.merge import merge
from lightsae.activations.tools.shuffle import shuffle
from lightsae.activations.tools.split import split

Shards = Callable[..., Path]


def in_class_order(folder: Path, rows: int = 4000, chunk_rows: int = 50) -> Path:
    label = torch.arange(rows) // 400
    manifest = Manifest(d_in=2, dtype="float32", has_labels=True)
    with ShardWriter(folder, manifest, chunk_rows=chunk_rows) as writer:
        writer.write(torch.zeros(rows, 2), torch.arange(rows), label=label)
    return folder


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[ShardSet]:
    opened = ShardSet(in_class_order(tmp_path / "set"))
    yield opened
    opened.close()


def of_the_loader(shards: ShardSet, buffer_rows: int) -> list[float]:
    rule = split_rule(distinct_samples(shards), val_fraction=0, test_fraction=0, seed=0)
    rows = count_rows(shards, rule, ("all",))["all"]
    options = {"batch_size": 100, "buffer_rows": buffer_rows, "seed": 3}
    found = []
    for batch in ActivationLoader(shards, rule, "all", rows, **options):
        counts = torch.bincount(batch.label, minlength=10).double()
        found.append(float(((counts - 10) ** 2 / 10).sum() / 9))
    return found


@pytest.mark.parametrize("buffer_rows", [1000, 150])
def test_mixing_is_that_of_the_loader(shards: ShardSet, buffer_rows: int) -> None:
    found = of_the_loader(shards, buffer_rows)
    said = label_chi_square(shards, buffer_rows=buffer_rows, batch_size=100, seed=3)
    assert said == pytest.approx(np.mean(found))
    assert said > 3


def test_few_batches_are_spread_over_all_groups(shards: ShardSet) -> None:
    found = of_the_loader(shards, 1000)
    options = {"buffer_rows": 1000, "batch_size": 100, "seed": 3}
    assert label_chi_square(shards, **options, max_batches=8) == pytest.approx(np.mean(found[::5]))


def test_of_many_chunks_only_some_groups_are_looked_at(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_mixing, "_GROUP_CHUNKS", 20)
    found = of_the_loader(shards, 1000)
    read = []
    monkeypatch.setattr(label_mixing, "label_frequencies", lambda _: dict.fromkeys(range(10), 0.1))
    index = shards.read_index
    monkeypatch.setattr(shards, "read_index", lambda chunk: (read.append(chunk), index(chunk))[1])
    said = label_chi_square(shards, buffer_rows=1000, batch_size=100, seed=3)
    assert said == pytest.approx(np.mean(found[:5] + found[-5:]))
    assert len(read) == 20


def test_one_class_has_no_mixing(make_shards: Shards) -> None:
    shards = ShardSet(make_shards(rows=20, tokens=20))
    assert np.isnan(label_chi_square(shards, buffer_rows=20, batch_size=4))
    shards.close()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[Path], list[str]]:
    def opened(folder: Path) -> list[str]:
        caplog.clear()
        with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
            ActivationDataModule(str(folder), buffer_rows=400).setup()
        return [line for line in caplog.messages if "chi-square" in line]

    return opened


def test_mixing_is_told_of_labels_in_any_order(
    tmp_path: Path, told: Callable[[Path], list[str]]
) -> None:
    sets = [in_class_order(tmp_path / str(rows), rows) for rows in (4000, 2000)]
    merge([str(folder) for folder in sets], str(tmp_path / "merged"))
    split(str(sets[0]), str(tmp_path / "parts"), [0.5, 0.5])
    for folder in (sets[0], tmp_path / "merged", tmp_path / "parts/0"):
        (line,) = told(folder)
        assert "lightsae shards shuffle mixes them" in line


def test_mixing_is_not_told_of_rows_in_a_random_order(
    tmp_path: Path, told: Callable[[Path], list[str]]
) -> None:
    shuffle(str(in_class_order(tmp_path / "set")), str(tmp_path / "out"))
    split(str(tmp_path / "out"), str(tmp_path / "parts"), [0.5, 0.5])
    merge([str(tmp_path / "parts/0"), str(tmp_path / "parts/1")], str(tmp_path / "merged"))
    for folder in ("out", "parts/0", "merged"):
        assert told(tmp_path / folder) == []


def test_nothing_is_told_of_labels_without_a_whole_batch(
    tmp_path: Path, told: Callable[[Path], list[str]]
) -> None:
    assert told(in_class_order(tmp_path, 200)) == []
