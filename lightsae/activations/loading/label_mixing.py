"""How well labels are mixed in the batches of an epoch: chi-square over degrees of freedom."""

from collections.abc import Iterator

import numpy as np

from lightsae.activations.loading.epoch_plan import Group, Share, plan_epoch
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import Manifest
from lightsae.activations.shards.reading.shard_set import ShardSet

_FREQUENCY_CHUNKS = 16_384
_GROUP_CHUNKS = 65_536
_EXTRACTED = {"images", "data", "preparation", "batch_size", "seed", "compute"}


def in_random_order(manifest: Manifest) -> bool:
    """Whether `extract` or `shuffle` put the rows in a random order.

    Example:
        >>> in_random_order(Manifest(d_in=4, dtype="float16", settings={"made_by": "convert"}))
        False
        >>> in_random_order(Manifest(d_in=4, dtype="float16", settings={"random_order": True}))
        True
    """
    settings = manifest.settings
    extracted = "made_by" not in settings and settings.keys() >= _EXTRACTED
    return settings.get("random_order", extracted) is True


def label_chi_square(
    shards: ShardSet,
    *,
    buffer_rows: int,
    batch_size: int = 256,
    seed: int = 0,
    max_batches: int = 2000,
) -> float:
    """Chi-square of the labels of shuffled batches over its degrees of freedom.

    The order is that of `ActivationLoader` in its first epoch over all rows in one process; only
    labels are read. Training leaves out the rows that are held out: its groups reach over as many
    stored rows, and its batches over a little more of them.

    Args:
        shards: A folder with labels.
        buffer_rows: Rows held in memory to shuffle among.
        batch_size: Rows per batch.
        seed: Seed of the order.
        max_batches: Look at about this many batches at most, spread over the epoch.

    Returns:
        Mean over the batches: 1 where rows are drawn at random, more where batches differ; NaN if
        there are fewer than two labels, or no whole batch.
    """
    frequency = label_frequencies(shards)
    if len(frequency) < 2:
        return float("nan")
    rows = shards.chunks[:, 2]
    order = np.random.default_rng([seed, 0]).permutation(len(rows))
    share = Share(int(rows.sum()), 0, 1, batch_size)
    groups = plan_epoch(rows, rows, share, order=order, group_rows=max(1, buffer_rows // 2))
    ends = np.cumsum([group.rows for group in groups])
    number = min(max_batches, max(1, _GROUP_CHUNKS * len(groups) // len(rows)))
    firsts = batch_size * _spread(ends, batch_size, number, max_batches)
    batches = _batches(shards, groups, ends, firsts, batch_size, seed)
    found = [_of_batch(labels, frequency) for labels in batches]
    return float(np.mean(found)) if found else float("nan")


def label_frequencies(shards: ShardSet) -> dict[int, float]:
    """How often each label occurs, from chunks spread over the folder, in the labels' order."""
    number = len(shards.chunks)
    chunks = np.unique(np.linspace(0, number - 1, min(number, _FREQUENCY_CHUNKS)).astype(int))
    labels = np.concatenate([shards.read_index(chunk)[2] for chunk in chunks.tolist()])
    names, counts = np.unique(labels, return_counts=True)
    return dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))


def _spread(ends: Array, batch_size: int, number: int, max_batches: int) -> Array:
    """Whole batches to look at: some of those that begin in each of a number of groups."""
    edges = np.minimum(-(-np.concatenate([[0], ends]) // batch_size), ends[-1] // batch_size)
    groups = np.unique(np.linspace(0, len(ends) - 1, min(number, len(ends))).astype(int))
    most = max(1, max_batches // len(groups))
    parts = [
        np.linspace(low, high - 1, min(most, high - low)).astype(int)
        for low, high in zip(edges[groups].tolist(), edges[groups + 1].tolist(), strict=True)
        if low < high
    ]
    return np.concatenate(parts) if parts else np.empty(0, int)


def _batches(
    shards: ShardSet, groups: list[Group], ends: Array, firsts: Array, batch_size: int, seed: int
) -> Iterator[Array]:
    """Labels of batches, told by their first rows; only groups that they touch are read."""
    held, held_to = np.empty(0, np.int64), 0
    for group, end in zip(groups, ends.tolist(), strict=True):
        start = end - group.rows
        low = np.searchsorted(firsts, start - batch_size, side="right")
        touching = firsts[low : np.searchsorted(firsts, end)]
        if not len(touching):
            continue
        labels = np.concatenate([shards.read_index(chunk)[2] for chunk in group.chunks.tolist()])
        np.random.default_rng([seed, 0, 0, 1, group.number]).shuffle(labels)
        held = np.concatenate([held, labels]) if held_to == start else labels
        for first in (touching[touching + batch_size <= end] - (end - len(held))).tolist():
            yield held[first : first + batch_size]
        held, held_to = held[-batch_size:], end


def _of_batch(labels: Array, frequency: dict[int, float]) -> float:
    """Of one batch; labels so rare that their frequency is not known are left out."""
    names = np.array(list(frequency))
    expected = np.array(list(frequency.values())) * len(labels)
    places = np.searchsorted(names, labels).clip(max=len(names) - 1)
    counts = np.bincount(places[names[places] == labels], minlength=len(names))
    return float(((counts - expected) ** 2 / expected).sum() / (len(names) - 1))
