"""Train, validation and test splits by sample."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.reading.shard_set import ShardSet
from lightsae.errors import LightsaeError

_BLOCK_ROWS = 1 << 20
Split = Literal["train", "validation", "test", "all"]


def hash_samples(sample_index: Array, seed: int) -> Array:
    """Mix sample indices with a seed, one to one (the finaliser of splitmix64).

    Args:
        sample_index: Int64 `[n]`.
        seed: Any integer.

    Returns:
        Uint64 `[n]`; different samples have different hashes.

    Example:
        >>> len(np.unique(hash_samples(np.arange(1000), seed=0)))
        1000
    """
    offset = (seed + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
    mixed = sample_index.astype(np.uint64) + np.uint64(offset)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


@dataclass(frozen=True)
class SplitRule:
    """Which samples belong to which split.

    Samples are ordered by a seeded hash; the first go to validation, the next to test, the rest to
    train. All rows of a sample share its split, wherever they lie.

    Attributes:
        seed: Seed of the hash.
        validation_end: Number of the first hash after the validation samples.
        test_end: Number of the first hash after the test samples.
    """

    seed: int
    validation_end: int
    test_end: int

    def mask(self, sample_index: Array, split: Split) -> Array:
        """Which rows belong to a split.

        Args:
            sample_index: Int64 `[n]`.
            split: Name of the split; "all" takes every row.

        Returns:
            Bool `[n]`.
        """
        if split == "all":
            return np.ones(len(sample_index), bool)
        hashes = hash_samples(sample_index, self.seed)
        if split == "validation":
            return hashes < np.uint64(self.validation_end)
        if split == "test":
            return ~(hashes < np.uint64(self.validation_end)) & (hashes < np.uint64(self.test_end))
        return ~(hashes < np.uint64(self.test_end))


def split_rule(
    samples: Array, *, val_fraction: float, test_fraction: float, seed: int
) -> SplitRule:
    """Divide samples by a seeded hash.

    Args:
        samples: The distinct sample indices, int64 `[n]`.
        val_fraction: Share of samples for validation, rounded; at least one if above 0.
        test_fraction: Share of samples for test, likewise.
        seed: Seed of the division.

    Returns:
        The rule.

    Raises:
        LightsaeError: If a fraction is not in [0, 1), or no sample is left for training.

    Example:
        >>> rule = split_rule(np.arange(100), val_fraction=0.1, test_fraction=0.2, seed=0)
        >>> [int(rule.mask(np.arange(100), s).sum()) for s in ("train", "validation", "test")]
        [70, 10, 20]
    """
    counts = []
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise LightsaeError(f"{name} is {fraction}, expected at least 0 and less than 1")
        counts.append(max(1, round(fraction * len(samples))) if fraction else 0)
    if sum(counts) >= len(samples):
        raise LightsaeError(
            f"no sample is left to train on: {len(samples)} samples, {counts[0]} of them for "
            f"validation and {counts[1]} for test"
        )
    hashes = np.sort(hash_samples(samples, seed))
    return SplitRule(seed, int(hashes[counts[0]]), int(hashes[sum(counts)]))


def distinct_samples(shards: ShardSet) -> Array:
    """The distinct sample indices of all shards, sorted, without holding every row's."""
    samples = np.empty(0, np.int64)
    for _, found in _sample_blocks(shards):
        samples = np.unique(np.concatenate([samples, *found]))
    return samples


def count_rows(shards: ShardSet, rule: SplitRule, splits: tuple[Split, ...]) -> dict[Split, Array]:
    """Number of rows that each chunk has in each split.

    Args:
        shards: The shards.
        rule: The division.
        splits: Names of the splits to count.

    Returns:
        For each split int64 `[n_chunks]`.
    """
    counts = {split: np.zeros(len(shards.chunks), np.int64) for split in splits}
    for chunks, found in _sample_blocks(shards):
        samples = np.concatenate(found)
        starts = np.cumsum([0, *(len(part) for part in found[:-1])])
        for split, array in counts.items():
            array[chunks] = np.add.reduceat(rule.mask(samples, split), starts, dtype=np.int64)
    return counts


def _sample_blocks(shards: ShardSet) -> Iterator[tuple[Array, list[Array]]]:
    """Numbers of consecutive chunks of about so many rows, and the sample indices of each."""
    block = np.cumsum(shards.chunks[:, 2]) // _BLOCK_ROWS
    for chunks in np.split(np.arange(len(block)), np.flatnonzero(np.diff(block)) + 1):
        yield chunks, [shards.read_index(chunk)[0] for chunk in chunks.tolist()]
