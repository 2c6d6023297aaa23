"""What a study is made on: a shard set, and a second one that compares its samples."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightsae.activations import ShardSet
from lightsae.activations.loading.paired_rows.sample_embeddings import SampleEmbeddings
from lightsae.activations.loading.splits import SplitRule, distinct_samples, split_rule

SPLITS = ("train", "validation", "test")


class Rows(NamedTuple):
    """The rows of a split, in the order of their samples.

    Attributes:
        x: Activations, float32 [rows, d_in].
        e: Embedding of each by another model, float32 [rows, d_e].
        label: Class of each, int64 [rows]; None where the shards have none.
    """

    x: Tensor
    e: Tensor
    label: Tensor | None


@dataclass(frozen=True)
class Pair:
    """A shard set, and the embeddings that MS is measured in.

    The embeddings have a row for each row of the shards, by sample and token, or one per sample.

    Attributes:
        name: What tables call the set.
        shards: Its folder.
        embeddings: Folder of shards of another model over the same samples.
        e_name: What tables call that model.
        val_fraction: Share of the samples that lambda is chosen on.
        test_fraction: Share that is looked at last.
        split_seed: Seed of the division by sample.
    """

    name: str
    shards: Path
    embeddings: Path
    e_name: str
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0

    def load(self) -> dict[str, Rows]:
        """Every split, in memory; read once in a process."""
        return _loaded(self)

    def _read(self) -> dict[str, Rows]:
        shards = ShardSet(self.shards)
        rule = split_rule(
            distinct_samples(shards),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.split_seed,
        )
        x, index = _all_rows(shards)
        order = _order(index)
        x, index = x[order], index[:, order]
        e = _embeddings(self.embeddings, index)
        return {split: _rows(x, e, index, rule, split) for split in SPLITS}


@lru_cache(maxsize=1)
def _loaded(pair: Pair) -> dict[str, Rows]:
    return pair._read()


def _rows(x: Tensor, e: Tensor, index: Tensor, rule: SplitRule, split: str) -> Rows:
    mask = torch.from_numpy(rule.mask(index[0].numpy(), split))  # type: ignore[arg-type]
    label = index[2][mask] if len(index) == 3 else None
    return Rows(x[mask], e[mask], label)


def _all_rows(shards: ShardSet) -> tuple[Tensor, Tensor]:
    """Activations [rows, d_in], and sample, token and, if there are some, label [2 or 3, rows]."""
    chunks = range(len(shards.chunks))
    x = np.concatenate(shards.read_activations(chunks))
    index = np.concatenate([shards.read_index(chunk) for chunk in chunks], axis=1)
    shards.close()
    return torch.from_numpy(x), torch.from_numpy(index)


def _order(index: Tensor) -> Tensor:
    """By sample, then token."""
    return torch.from_numpy(np.lexsort((index[1].numpy(), index[0].numpy())))


def _embeddings(folder: Path, index: Tensor) -> Tensor:
    """The embedding of each row, whatever the order they lie in."""
    e, there = _all_rows(ShardSet(folder))
    order = _order(there)
    if torch.equal(there[:2, order], index[:2]):
        return e[order]
    return SampleEmbeddings(str(folder)).of(index[0])
