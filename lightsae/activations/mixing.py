"""How well the labels of a folder are mixed in the batches that training would see."""

import numpy as np

from lightsae.activations.epoch import Share, plan_epoch
from lightsae.activations.reader import ShardSet
from lightsae.activations.storage import Array

_SAMPLED_CHUNKS = 4096


def label_chi_square(
    shards: ShardSet,
    *,
    buffer_rows: int,
    batch_size: int = 256,
    seed: int = 0,
    max_batches: int = 400,
) -> float:
    """Chi-square of the labels of shuffled batches over its degrees of freedom.

    The order is that of `ActivationLoader` in its first epoch; only labels are read.

    Args:
        shards: A folder with labels.
        buffer_rows: Rows held in memory to shuffle among.
        batch_size: Rows per batch.
        seed: Seed of the order.
        max_batches: Look at this many batches at most.

    Returns:
        Mean over the batches: 1 where rows are drawn at random, more where batches differ; NaN if
        there are fewer than two labels, or no whole batch.
    """
    frequency = _frequencies(shards)
    if len(frequency) < 2:
        return float("nan")
    rows = shards.chunks[:, 2]
    order = np.random.default_rng([seed, 0]).permutation(len(rows))
    share = Share(int(rows.sum()), 0, 1, batch_size)
    groups = plan_epoch(rows, rows, share, order=order, group_rows=max(1, buffer_rows // 2))
    found: list[float] = []
    rest = np.empty(0, np.int64)
    for group in groups:
        labels = np.concatenate([shards.read_index(chunk)[2] for chunk in group.chunks.tolist()])
        np.random.default_rng([seed, 0, 0, 1, group.number]).shuffle(labels)
        rest = np.concatenate([rest, labels])
        whole = len(rest) // batch_size * batch_size
        found += _of_batches(rest[:whole], frequency, batch_size)
        rest = rest[whole:]
        if len(found) >= max_batches:
            break
    return float(np.mean(found)) if found else float("nan")


def _frequencies(shards: ShardSet) -> dict[int, float]:
    """How often each label occurs, from chunks spread over the folder."""
    number = len(shards.chunks)
    chunks = np.unique(np.linspace(0, number - 1, min(number, _SAMPLED_CHUNKS)).astype(int))
    labels = np.concatenate([shards.read_index(chunk)[2] for chunk in chunks.tolist()])
    names, counts = np.unique(labels, return_counts=True)
    return dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))


def _of_batches(labels: Array, frequency: dict[int, float], batch_size: int) -> list[float]:
    """Of each of some whole batches."""
    names = np.array(list(frequency))
    expected = np.array(list(frequency.values())) * batch_size
    found = []
    for batch in labels.reshape(-1, batch_size):
        counts = (batch[:, None] == names).sum(axis=0)
        found.append(float(((counts - expected) ** 2 / expected).sum() / (len(names) - 1)))
    return found
