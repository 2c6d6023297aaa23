from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from lightsae.activations import ShardSet
from lightsae.activations.loading import splits
from lightsae.activations.loading.splits import (
    SplitRule,
    count_rows,
    distinct_samples,
    hash_samples,
    split_rule,
)
from lightsae.errors import LightsaeError

SPLITS = ("train", "validation", "test")


def test_splits_divide_the_samples() -> None:
    samples = np.arange(1000) * 7
    rule = split_rule(samples, val_fraction=0.05, test_fraction=0.1, seed=3)
    masks = np.stack([rule.mask(samples, split) for split in SPLITS])
    assert (masks.sum(axis=0) == 1).all()
    assert masks.sum(axis=1).tolist() == [850, 50, 100]
    assert rule.mask(samples, "all").all()


def test_a_split_is_a_fair_draw() -> None:
    samples = np.arange(10_000)
    chosen = split_rule(samples, val_fraction=0.2, test_fraction=0, seed=0).mask(
        samples, "validation"
    )
    counts = chosen.reshape(10, 1000).sum(axis=1)
    assert ((counts - 200) ** 2 / 160).sum() < 30


def test_another_seed_is_another_division() -> None:
    samples = np.arange(1000)
    first, second = (
        split_rule(samples, val_fraction=0.3, test_fraction=0.1, seed=seed).mask(samples, "test")
        for seed in (0, 1)
    )
    assert 0 < (first & second).sum() < 40


def test_negative_samples_and_seeds_hash_apart() -> None:
    samples = np.arange(-500, 500)
    assert len(np.unique(hash_samples(samples, seed=-5))) == 1000


def test_all_tokens_of_a_sample_are_in_one_split(make_shards: Callable[..., Path]) -> None:
    shards = ShardSet(make_shards(rows=200, tokens=5))
    rule = split_rule(distinct_samples(shards), val_fraction=0.25, test_fraction=0.25, seed=0)
    counts = count_rows(shards, rule, SPLITS)
    assert {split: int(rows.sum()) for split, rows in counts.items()} == {
        "train": 100,
        "validation": 50,
        "test": 50,
    }


@pytest.mark.parametrize("block_rows", [1, 20, 1 << 20])
def test_chunks_are_divided_many_at_a_time(
    make_shards: Callable[..., Path], block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = ShardSet(make_shards(rows=200, tokens=3))
    samples = distinct_samples(shards)
    rule = split_rule(samples, val_fraction=0.25, test_fraction=0.25, seed=0)
    indices = [shards.read_index(chunk)[0] for chunk in range(len(shards.chunks))]
    alone = {split: [int(rule.mask(part, split).sum()) for part in indices] for split in SPLITS}
    asked = Mock(wraps=SplitRule.mask)
    monkeypatch.setattr(splits, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(SplitRule, "mask", lambda *words: asked(*words))
    together = count_rows(shards, rule, SPLITS)
    assert {split: rows.tolist() for split, rows in together.items()} == alone
    assert np.array_equal(distinct_samples(shards), samples)
    assert asked.call_count == len(SPLITS) or block_rows < 200


def test_a_small_fraction_is_one_sample_and_none_is_none() -> None:
    rule = split_rule(np.arange(5), val_fraction=0.01, test_fraction=0, seed=0)
    assert [int(rule.mask(np.arange(5), split).sum()) for split in SPLITS] == [4, 1, 0]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2])
def test_a_fraction_out_of_range_is_named(fraction: float) -> None:
    with pytest.raises(LightsaeError, match=f"test_fraction is {fraction}, expected at least 0"):
        split_rule(np.arange(5), val_fraction=0.1, test_fraction=fraction, seed=0)


def test_something_must_be_left_to_train_on() -> None:
    with pytest.raises(LightsaeError, match="no sample is left to train on: 2 samples"):
        split_rule(np.arange(2), val_fraction=0.5, test_fraction=0.5, seed=0)
