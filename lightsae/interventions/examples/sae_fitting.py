"""An autoencoder fitted to rows in memory, by way of shards."""

from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from lightsae.activations import ActivationDataModule, Manifest, ShardWriter
from lightsae.activations.shards.dtypes import Array
from lightsae.sae import SparseAutoencoder, TopK
from lightsae.training import SAEAdam, SAEModule, quieten

_ROWS_AT_ONCE = 4096


def fit_sae(
    rows: Tensor,
    folder: Path,
    *,
    d_sae: int,
    k: int,
    epochs: int,
    seed: int = 0,
    batch_size: int = 256,
    lr: float = 3e-3,
    samples: Tensor | None = None,
) -> SparseAutoencoder:
    """Fit a Top-k autoencoder to activations and keep it in a folder, from which it comes again.

    Args:
        rows: Activations, [rows, d_in] float32.
        folder: Gets `shards` and `sae`; an autoencoder that is there is loaded.
        d_sae: Size of the dictionary.
        k: Latents per row.
        epochs: Passes over the rows.
        seed: Of weights and batches.
        batch_size: Rows per step.
        lr: Learning rate of Adam.
        samples: Which sample a row comes from, [rows] int64; by default each is one.

    Returns:
        The autoencoder, in eval mode.

    Raises:
        LightsaeError: If the rows are no activations.
    """
    place = folder / "sae"
    if not (place / "sae.json").exists():
        quieten()
        data = ActivationDataModule(
            str(_shards(rows, samples, folder / "shards")),
            batch_size=batch_size, val_fraction=0.05, test_fraction=0.05,
        )  # fmt: skip
        seed_everything(seed, verbose=False)
        module = SAEModule(
            d_sae=d_sae, selection=TopK(k), optimizer=lambda weights: SAEAdam(weights, lr=lr)
        )
        Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        ).fit(module, data)  # fmt: skip
        module.sae.save(place)
    return SparseAutoencoder.load(place).eval()


def _shards(rows: Tensor, samples: Tensor | None, folder: Path) -> Path:
    """The rows as shards; those of a whole folder stay, after a stop the rest is written."""
    if not (folder / "manifest.json").exists() or not Manifest.load(folder).complete:
        index = np.arange(len(rows)) if samples is None else samples.numpy()
        token = _place_in_sample(index)
        with ShardWriter(folder, Manifest(d_in=rows.shape[1], dtype="float32")) as writer:
            for start in range(writer.manifest.rows, len(rows), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                writer.write(rows[part].numpy(), sample_index=index[part], token_index=token[part])
    return folder


def _place_in_sample(index: Array) -> Array:
    """Of each row how many of its sample come before it, where samples stand together."""
    begins = np.flatnonzero(np.diff(index, prepend=index[0] - 1))
    return np.arange(len(index)) - np.repeat(begins, np.diff([*begins, len(index)]))
