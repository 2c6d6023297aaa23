"""Whether two folders of shards hold the same rows of the same samples, in the same order."""

from collections.abc import Iterator

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import Manifest
from lightsae.activations.shards.reading.shard_set import ShardSet
from lightsae.errors import LightsaeError

# What layers of one extraction have in common, as far as the folders say.
_SAME = ("model", "weights_hash", "tokens")
_IMAGES = "data"


def require_same_rows(inputs: ShardSet, targets: ShardSet) -> None:
    """Refuse targets whose rows are not those of the inputs.

    Args:
        inputs: Shards of one layer.
        targets: Shards of another.

    Raises:
        LightsaeError: Naming the folder of the targets and the first row or setting that differs,
            or how to get the rows into one order.
    """
    _require_same_source(inputs, targets)
    if _in_one_order(inputs, targets):
        return
    ours, theirs = (_sorted_rows(shards) for shards in (inputs, targets))
    for there, here, folder, other in (
        (theirs, ours, targets.name, inputs.name),
        (ours, theirs, inputs.name, targets.name),
    ):
        missing = np.setdiff1d(here, there)
        if len(missing):
            sample, token = missing[0]
            raise LightsaeError(
                f"{folder}: has no row of sample {sample}, token {token}, which {other} has: "
                "targets must have the same rows, as layers of one extraction have"
            )
    if len(ours) != len(theirs):
        raise LightsaeError(
            f"{targets.name}: has {len(theirs)} rows, {inputs.name} has {len(ours)} of the same "
            "samples and tokens: expected each as often"
        )
    raise LightsaeError(
        f"{targets.name}: has the rows of {inputs.name} in another order: extract both layers in "
        "one pass, and shuffle either both of them or none; of one width and dtype, `lightsae "
        "shards shuffle` brings them into one order if seed and buffer_bytes are the same"
    )


def _require_same_source(inputs: ShardSet, targets: ShardSet) -> None:
    """Refuse another model, kind of token or set of images, where both folders tell."""
    for name in (*_SAME, _IMAGES):
        here, there = (_told(shards.manifest, name) for shards in (inputs, targets))
        if here and there and here != there:
            what = "images" if name == _IMAGES else name
            raise LightsaeError(
                f"{targets.name}: has {what} {there!r}, {inputs.name} has {here!r}: targets must "
                "be another layer of the same extraction"
            )


def _told(manifest: Manifest, name: str) -> object:
    """What a manifest says; a folder made of others or of files says nothing of the images."""
    if name != _IMAGES:
        return getattr(manifest, name)
    return None if "made_by" in manifest.settings else manifest.settings.get(_IMAGES)


def _in_one_order(inputs: ShardSet, targets: ShardSet) -> bool:
    """Whether row n is of the same sample and token in both, for all n."""
    if inputs.manifest.rows != targets.manifest.rows:
        return False
    ours, theirs = _blocks(inputs), _blocks(targets)
    left, right = next(ours), next(theirs)
    while True:
        rows = min(left.shape[1], right.shape[1])
        if not np.array_equal(left[:, :rows], right[:, :rows]):
            return False
        left, right = left[:, rows:], right[:, rows:]
        left = left if left.shape[1] else next(ours, left)
        right = right if right.shape[1] else next(theirs, right)
        if not left.shape[1] or not right.shape[1]:
            return True


def _blocks(shards: ShardSet) -> Iterator[Array]:
    """Sample and token of the rows of each chunk, int64 `[2, n]`."""
    for chunk in range(len(shards.chunks)):
        yield shards.read_index(chunk)[:2]


def _sorted_rows(shards: ShardSet) -> Array:
    """Sample and token of every row as one value each, sorted."""
    rows = np.concatenate(list(_blocks(shards)), axis=1).T
    pairs: Array = np.ascontiguousarray(rows).view([("sample", np.int64), ("token", np.int64)])
    return np.sort(pairs.reshape(-1))
