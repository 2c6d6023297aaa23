"""Shards, an autoencoder of them and the whole split at once, as the slow references take it."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.activations import ActivationDataModule, Manifest, ShardWriter
from lightsae.sae import SparseAutoencoder, SparseCode, TopK

D_IN, D_SAE, K, SAMPLES = 6, 24, 3, 60


def write_rows(
    folder: Path,
    x: Tensor,
    sample: Tensor,
    token: Tensor | None = None,
    label: Tensor | None = None,
    tokens: str = "class",
) -> Path:
    manifest = Manifest(
        d_in=x.shape[1], dtype="float32", tokens=tokens, has_labels=label is not None
    )
    with ShardWriter(folder, manifest, rows_per_shard=80, chunk_rows=8) as writer:
        writer.write(x, sample, token, label)
    return folder


def random_rows(n: int, width: int = D_IN, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(D_SAE, width, generator=generator)
    strengths = (torch.randn(n, D_SAE, generator=generator) - 1.5).relu()
    return strengths @ directions + 0.3 * torch.randn(n, width, generator=generator)


def shuffled(n: int, seed: int = 0) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def class_shards(folder: Path, labels: bool = True) -> Path:
    """One row of each sample, in random order."""
    sample = shuffled(SAMPLES) * 3
    return write_rows(folder, random_rows(SAMPLES), sample, label=sample % 4 if labels else None)


def patch_shards(folder: Path, patches: int = 4, prefix: int = 1) -> Path:
    """Patches of images, the patches of different images mixed."""
    order = shuffled(SAMPLES * patches)
    sample, token = order // patches, order % patches + prefix
    x = random_rows(len(order))
    return write_rows(folder, x, sample, token, label=sample % 4, tokens="patch")


def make_sae(d_in: int = D_IN, seed: int = 0) -> SparseAutoencoder:
    torch.manual_seed(seed)
    sae = SparseAutoencoder(d_in, D_SAE, TopK(K))
    sae.initialize_(random_rows(50, d_in))
    # In float64, so that batches of another size round alike.
    return sae.double().requires_grad_(False)


def open_data(folder: Path, **options: object) -> ActivationDataModule:
    given = {"batch_size": 7, "val_fraction": 0.1, "test_fraction": 0.5, "buffer_rows": 64}
    data = ActivationDataModule(str(folder), **(given | options))
    data.setup()
    return data


class Split(NamedTuple):
    """All rows of a split at once."""

    x: Tensor
    sample: Tensor
    token: Tensor
    label: Tensor
    code: SparseCode
    x_hat: Tensor


def whole_split(sae: SparseAutoencoder, data: ActivationDataModule, split: str = "test") -> Split:
    batches = list(data.split_dataloader(split))
    x, sample, token = (torch.cat([batch[column] for batch in batches]) for column in range(3))
    x = x.to(sae.W_enc.dtype)
    labels = [batch.label for batch in batches]
    label = torch.full_like(sample, -1) if labels[0] is None else torch.cat(labels)
    code = sae.encode(x)
    return Split(x, sample, token, label, code, sae.decode(code))
