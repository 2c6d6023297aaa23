"""What a study is made on: a shard set, and a second one that compares its samples."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightsae.activations import ShardSet
from lightsae.activations.loading.sample_embeddings import SampleEmbeddings
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
    """A shard set with one row per sample, and the embeddings that MS is measured in.

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
        """Every split, in memory."""
        shards = ShardSet(self.shards)
        rule = split_rule(
            distinct_samples(shards),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.split_seed,
        )
        chunks = range(len(shards.chunks))
        x = torch.from_numpy(np.concatenate(shards.read_activations(chunks)))
        index = torch.from_numpy(np.concatenate([shards.read_index(c) for c in chunks], axis=1))
        shards.close()
        order = index[0].argsort(stable=True)
        x, index = x[order], index[:, order]
        e = SampleEmbeddings(str(self.embeddings)).of(index[0])
        return {split: _rows(x, e, index, rule, split) for split in SPLITS}


def _rows(x: Tensor, e: Tensor, index: Tensor, rule: SplitRule, split: str) -> Rows:
    mask = torch.from_numpy(rule.mask(index[0].numpy(), split))  # type: ignore[arg-type]
    label = index[2][mask] if len(index) == 3 else None
    return Rows(x[mask], e[mask], label)
