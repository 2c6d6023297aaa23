"""Whatever the shards, ranks and threads: every row once an epoch, in the order of the seed."""

import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightsae.activations import ActivationLoader, Manifest, ShardSet, ShardWriter
from lightsae.activations.loading.splits import count_rows, distinct_samples, split_rule

Batches = list[list[int]]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def sets(draw: st.DrawFn) -> dict[str, Any]:
    """Rows in shards of uneven lengths, in chunks that do not divide them."""
    return {
        "parts": draw(st.lists(st.integers(1, 23), min_size=1, max_size=8)),
        "rows_per_shard": draw(st.sampled_from([1, 7, 20, 500])),
        "chunk_rows": draw(st.sampled_from([1, 3, 8])),
        "tokens": draw(st.integers(1, 4)),
    }


def opened(folder: Path, parts: list[int], tokens: int, **options: int) -> ShardSet:
    """Row i holds i and is of sample i // tokens; sets once written are opened again."""
    path = folder / "-".join(map(str, [*parts, tokens, *options.values()]))
    if not path.exists():
        rows = torch.arange(sum(parts))
        with ShardWriter(path, Manifest(d_in=1, dtype="float32"), **options) as writer:
            for part in rows.split(parts):
                writer.write(part[:, None].float(), part // tokens)
    return ShardSet(path)


def epochs(
    shards: ShardSet, world_size: int, state: dict[str, int] | None = None, **options: Any
) -> list[Batches]:
    """Rows of each batch of each rank, in an epoch or in what is left of one."""
    rule = split_rule(distinct_samples(shards), val_fraction=0, test_fraction=0, seed=0)
    counts = count_rows(shards, rule, ("train",))["train"]
    found = []
    for rank in range(world_size):
        loader = ActivationLoader(
            shards, rule, "train", counts, rank=rank, world_size=world_size, **options
        )
        if state is not None:
            loader.load_state_dict(state)
        found.append([batch.activations[:, 0].long().tolist() for batch in loader])
    return found


loaders = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 11),
        "buffer_rows": st.sampled_from([1, 10, 64]),
        "seed": st.integers(0, 3),
        "shuffle": st.booleans(),
    }
)


@settings(max_examples=80, deadline=None)
@given(sets(), loaders, st.integers(1, 5), st.integers(0, 3))
def test_every_row_once_an_epoch(
    folder: Path, rows: dict[str, Any], options: dict[str, Any], world_size: int, readers: int
) -> None:
    total = sum(rows["parts"])
    world_size = min(world_size, total)
    shards = opened(folder, **rows)
    found = epochs(shards, world_size, **options, readers=readers)
    delivered = list(chain.from_iterable(chain.from_iterable(found)))
    assert sorted(delivered) == list(range(total))
    if not options["shuffle"]:
        assert delivered == list(range(total))
    assert len({len(batches) for batches in found}) == 1
    assert found == epochs(shards, world_size, **options, readers=(readers + 1) % 4)
    shards.close()


@settings(max_examples=80, deadline=None)
@given(sets(), loaders, st.integers(1, 5), st.integers(0, 3), st.floats(0, 1, exclude_max=True))
def test_a_resume_delivers_the_rows_that_are_left(
    folder: Path,
    rows: dict[str, Any],
    options: dict[str, Any],
    world_size: int,
    readers: int,
    progress: float,
) -> None:
    world_size = min(world_size, sum(rows["parts"]))
    shards = opened(folder, **rows)
    state = {"epoch": 2, "batches": 0}
    whole = epochs(shards, world_size, state, **options, readers=readers)
    done = int(progress * len(whole[0]))
    state = {"epoch": 2, "batches": done}
    assert epochs(shards, world_size, state, **options) == [batches[done:] for batches in whole]
    shards.close()


@settings(max_examples=20, deadline=None)
@given(sets(), st.integers(2, 5))
def test_another_seed_or_epoch_is_another_order(
    folder: Path, rows: dict[str, Any], world_size: int
) -> None:
    if sum(rows["parts"]) < 12 * world_size:
        return
    shards = opened(folder, **rows)
    orders = [
        epochs(shards, world_size, {"epoch": epoch, "batches": 0}, batch_size=5, seed=seed)
        for epoch, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert np.unique(np.array(list(map(str, orders)))).size == 3
    shards.close()
