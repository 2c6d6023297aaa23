import gc
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightsae.activations import ActivationLoader, Manifest, ShardSet, ShardWriter
from lightsae.activations.loading.splits import count_rows, distinct_samples, split_rule
from lightsae.errors import LightsaeError

MakeLoader = Callable[..., ActivationLoader]


@pytest.fixture
def make_loader(make_shards: Callable[..., Path]) -> Iterator[MakeLoader]:
    folders: dict[str, Path] = {}
    opened: list[ShardSet] = []

    def make(split: str = "all", rows: int = 100, tokens: int = 1, **options: Any) -> Any:
        key = f"{rows}-{tokens}"
        if key not in folders:
            folders[key] = make_shards(rows=rows, tokens=tokens, name=key)
        shards = ShardSet(folders[key])
        opened.append(shards)
        rule = split_rule(distinct_samples(shards), val_fraction=0.2, test_fraction=0.1, seed=0)
        counts = count_rows(shards, rule, (split,))[split]  # type: ignore[arg-type, index]
        options = {"batch_size": 7, "buffer_rows": 32, **options}
        return ActivationLoader(shards, rule, split, counts, **options)  # type: ignore[arg-type]

    yield make
    for shards in opened:
        shards.close()


def _rows(loader: ActivationLoader) -> list[int]:
    return [int(row) for batch in loader for row in batch.activations[:, 0]]


def test_every_row_comes_once_an_epoch(make_loader: MakeLoader) -> None:
    loader = make_loader()
    first, second = _rows(loader), _rows(loader)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    assert loader.epoch == 1


def test_rows_keep_their_indices_and_labels(make_loader: MakeLoader) -> None:
    for batch in make_loader(tokens=4):
        row = batch.activations[:, 0].long()
        assert torch.equal(batch.sample_index, row // 4)
        assert torch.equal(batch.token_index, row % 4)
        assert torch.equal(batch.label, row // 4 % 3)
        assert batch.activations.dtype == torch.float32


def test_without_labels_a_batch_has_none(make_shards: Callable[..., Path]) -> None:
    shards = ShardSet(make_shards(labels=False))
    rule = split_rule(distinct_samples(shards), val_fraction=0, test_fraction=0, seed=0)
    counts = count_rows(shards, rule, ("all",))["all"]
    assert next(iter(ActivationLoader(shards, rule, "all", counts, batch_size=7))).label is None
    shards.close()


def test_the_last_batch_is_ragged_or_left_out(make_loader: MakeLoader) -> None:
    assert [len(batch.activations) for batch in make_loader()] == [7] * 14 + [2]
    loader = make_loader(drop_last=True)
    assert [len(batch.activations) for batch in loader] == [7] * 14
    assert len(loader) == 14


def test_stored_order_without_shuffling(make_loader: MakeLoader) -> None:
    loader = make_loader(shuffle=False)
    assert _rows(loader) == _rows(loader) == list(range(100))


@pytest.mark.parametrize("shuffle", [True, False])
def test_splits_do_not_share_samples(make_loader: MakeLoader, shuffle: bool) -> None:
    rows = [
        _rows(make_loader(split, tokens=5, shuffle=shuffle))
        for split in ("train", "validation", "test")
    ]
    assert sorted(chain(*rows)) == list(range(100))
    assert [len(part) for part in rows] == [70, 20, 10]
    samples = [{row // 5 for row in part} for part in rows]
    assert not samples[0] & samples[1] and not samples[1] & samples[2]


@pytest.mark.parametrize("change", [{"seed": 1}, {"rank": 1, "world_size": 2}])
def test_the_order_depends_on_seed_and_rank_alone(make_loader: MakeLoader, change: Any) -> None:
    assert _rows(make_loader()) == _rows(make_loader())
    assert _rows(make_loader()) != _rows(make_loader(**change))


@pytest.mark.parametrize("readers", [1, 3, 50])
def test_the_order_does_not_depend_on_how_many_read(make_loader: MakeLoader, readers: int) -> None:
    assert _rows(make_loader("train", readers=readers)) == _rows(make_loader("train"))


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_train_on_every_row_once(make_loader: MakeLoader, world_size: int) -> None:
    loaders = [make_loader(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(loader) for loader in loaders}) == 1
    for _ in range(2):
        rows = [_rows(loader) for loader in loaders]
        assert {len(part) for part in rows} <= {100 // world_size, -(-100 // world_size)}
        assert sorted(chain(*rows)) == list(range(100))


def test_ranks_evaluate_every_row_in_as_many_batches(make_loader: MakeLoader) -> None:
    loaders = [
        make_loader(rank=rank, world_size=3, batch_size=33, shuffle=False) for rank in range(3)
    ]
    lengths = [[len(batch.activations) for batch in loader] for loader in loaders]
    assert lengths == [[32, 1], [32, 1], [33, 1]]
    assert list(chain(*map(_rows, loaders))) == list(range(100))


@pytest.mark.parametrize("stop", [0, 1, 5, 14, 15])
def test_a_restored_loader_goes_on_where_it_was(make_loader: MakeLoader, stop: int) -> None:
    whole = make_loader()
    epochs = [[batch.activations[:, 0].tolist() for batch in whole] for _ in range(3)]
    stopped = make_loader()
    list(stopped)
    iterator = iter(stopped)
    for _ in range(stop):
        next(iterator)
    state = stopped.state_dict()
    iterator.close()  # type: ignore[attr-defined]
    restored = make_loader()
    restored.load_state_dict(state)
    rest = [batch.activations[:, 0].tolist() for batch in restored]
    assert rest == (epochs[1][stop:] or epochs[2])
    assert restored.epoch == (1 if stop < 15 else 2)


def test_looking_at_an_iterator_does_not_begin_an_epoch(make_loader: MakeLoader) -> None:
    loader = make_loader()
    iter(loader)
    assert (
        next(iter(loader)).sample_index.tolist() == next(iter(make_loader())).sample_index.tolist()
    )
    assert loader.epoch == 0


def test_an_epoch_left_early_is_followed_by_the_next(make_loader: MakeLoader) -> None:
    loader = make_loader()
    next(iter(loader))
    rows = _rows(loader)
    assert loader.epoch == 1
    other = make_loader()
    other.set_epoch(1)
    assert _rows(other) == rows


def test_a_batch_stays_as_it_was_delivered(make_loader: MakeLoader) -> None:
    batches = list(make_loader(buffer_rows=16))
    assert sorted(int(x) for batch in batches for x in batch.activations[:, 0]) == list(range(100))


def test_the_stored_dtype_can_be_kept(make_shards: Callable[..., Path]) -> None:
    shards = ShardSet(make_shards(dtype="bfloat16"))
    rule = split_rule(distinct_samples(shards), val_fraction=0, test_fraction=0, seed=0)
    counts = count_rows(shards, rule, ("all",))["all"]
    batches = [
        next(iter(ActivationLoader(shards, rule, "all", counts, batch_size=9, dtype=dtype)))
        for dtype in (None, torch.float32)
    ]
    assert batches[0].activations.dtype == torch.bfloat16
    assert torch.equal(batches[0].activations.float(), batches[1].activations)
    shards.close()


def test_an_error_in_the_reading_thread_reaches_the_consumer(make_loader: MakeLoader) -> None:
    loader = make_loader(shuffle=False)
    iterator = iter(loader)
    next(iterator)
    path = next(loader._shards.folder.glob("shard-00002.h5"))
    loader._shards.close()
    path.unlink()
    with pytest.raises(LightsaeError, match=r"shard-00002.h5: is missing"):
        list(iterator)


@pytest.mark.parametrize("option", ["batch_size", "buffer_rows"])
def test_sizes_are_positive(make_loader: MakeLoader, option: str) -> None:
    with pytest.raises(LightsaeError, match="expected at least 1"):
        make_loader(**{option: 0})


def test_an_empty_split_is_an_error(make_loader: MakeLoader) -> None:
    with pytest.raises(LightsaeError, match="the test split has 10 rows, too few for a batch on"):
        make_loader("test", world_size=11)
    with pytest.raises(LightsaeError, match="too few for a batch"):
        make_loader("test", batch_size=64, drop_last=True)


def test_one_row_is_one_batch(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, Manifest(d_in=3, dtype="float32")) as writer:
        writer.write(torch.ones(1, 3), torch.tensor([5]))
    shards = ShardSet(tmp_path)
    rule = split_rule(distinct_samples(shards), val_fraction=0, test_fraction=0, seed=0)
    loader = ActivationLoader(shards, rule, "train", np.array([1]), batch_size=4)
    assert [batch.sample_index.tolist() for batch in loader] == [[5]]
    shards.close()


@pytest.mark.parametrize("shuffle", [True, False])
def test_memory_is_used_again(make_loader: MakeLoader, shuffle: bool) -> None:
    loader = make_loader(shuffle=shuffle, dtype=None)
    for _ in range(3):
        for batch in loader:
            del batch
    gc.collect()
    (stream,) = loader._streams
    pools, batches = stream.reader.pools._waiting, stream.memory._waiting
    # A thread that is done with a pool may let go of it a little late.
    assert len(pools) in (2, 3) and len(batches) == 1


def test_two_iterators_share_no_memory(make_loader: MakeLoader) -> None:
    loader = make_loader(dtype=None)
    first, second = iter(loader), iter(loader)
    one, other = next(first), next(second)
    assert one.activations.data_ptr() != other.activations.data_ptr()


def test_batches_in_stored_order_are_handed_out_without_a_copy(make_loader: MakeLoader) -> None:
    loader = make_loader(shuffle=False, batch_size=8, dtype=None)
    batches = list(loader)
    memories = {batch.activations.untyped_storage().data_ptr() for batch in batches}
    assert len(memories) < len(batches)
    rows = torch.cat([batch.activations for batch in batches])
    kept = rows.clone()
    list(loader)
    assert torch.equal(torch.cat([batch.activations for batch in batches]), kept)


@pytest.mark.parametrize(
    ("name", "value", "others"),
    [
        ("batch_size", 8, {}),
        ("buffer_rows", 64, {}),
        ("seed", 1, {}),
        ("world_size", 2, {}),
        ("rows", 70, {"split": "train"}),
    ],
)
def test_a_position_in_an_epoch_of_other_batches_is_refused(
    make_loader: MakeLoader, name: str, value: int, others: Any
) -> None:
    loader = make_loader()
    next(iter(loader))
    other = make_loader(**(others or {name: value}))
    says = f"cannot go on in the middle of an epoch: {name} was .*, now it is {value}$"
    with pytest.raises(LightsaeError, match=says):
        other.load_state_dict(loader.state_dict())
    other.load_state_dict({**loader.state_dict(), "batches": 0})
