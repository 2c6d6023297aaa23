"""Autoencoders of one seed with anchors of growing weight, and what each comes to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from lightsae.activations import ActivationDataModule, Manifest, ShardWriter
from lightsae.dictionaries.matching.cosine import nearest_cosines
from lightsae.dictionaries.naming.latent_names import LatentNames
from lightsae.dictionaries.naming.names import name_latents
from lightsae.dictionaries.naming.vocabulary import Vocabulary
from lightsae.metrics import r2
from lightsae.sae import AuxK, SparseAutoencoder, SparseCode, TopK, VocabularyAnchor
from lightsae.training import SAEAdam, SAEModule, quieten

CUTOFF, WANTED, R2_GIVEN_UP = 0.8, 0.8, 0.005


@dataclass(frozen=True)
class Fitting:
    """How the autoencoders are fitted.

    Attributes:
        d_sae: Size of the dictionary; not smaller than the vocabulary.
        k: Latents per token.
        epochs: Passes over the rows.
        batch_size: Rows per step.
        lr: Learning rate of Adam.
        weights: lambda of the anchors.
    """

    d_sae: int = 4096
    k: int = 32
    epochs: int = 10
    batch_size: int = 512
    lr: float = 3e-3
    weights: Sequence[float] = (0.05, 0.15, 0.3)


@dataclass(frozen=True, eq=False)
class Fitted:
    """One autoencoder, and how it does on two splits.

    Attributes:
        weight: lambda of its anchor; 0 for the plain one.
        sae: The autoencoder.
        names: Of its latents; those count as alive that fire on the validation split.
        r2: By split.
    """

    weight: float
    sae: SparseAutoencoder
    names: LatentNames
    r2: dict[str, float]

    @property
    def aligned(self) -> float:
        """Share of all latents with cosine .8 to a token, silent ones too."""
        return float((self.names.similarity >= CUTOFF).float().mean())


def write_shards(rows: Tensor, folder: Path) -> Path:
    """Rows as shards, each a sample of its own."""
    with ShardWriter(folder, Manifest(d_in=rows.shape[1], dtype="float32")) as writer:
        for part in torch.arange(len(rows)).split(4096):
            writer.write(rows[part].numpy(), sample_index=part.numpy().astype(np.int64))
    return folder


def fit_all(
    shards: Path, splits: dict[str, Tensor], vocabulary: Vocabulary, fitting: Fitting, seed: int
) -> list[Fitted]:
    """A plain autoencoder and one for each weight, which differ in the anchor alone.

    Args:
        shards: Rows to fit to.
        splits: Rows "validation" and "test", [n, d_in] each.
        vocabulary: Tokens and their embeddings.
        fitting: Sizes and steps.
        seed: Of weights and batches.
    """
    found = []
    for weight in (0.0, *fitting.weights):
        anchor = VocabularyAnchor(weight, vocabulary.vectors) if weight else None
        sae = _fitted(shards, anchor, fitting, seed)
        alive = torch.zeros(fitting.d_sae, dtype=torch.bool)
        scores = {}
        for split, rows in splits.items():
            code = encoded(sae, rows)
            scores[split] = float(r2(x_hat=sae.decode(code), x=rows))
            if split == "validation":
                alive[code.indices[code.values > 0]] = True
        names = name_latents(sae.W_dec.detach(), vocabulary, CUTOFF, alive=alive)
        found.append(Fitted(weight, sae, names, scores))
    return found


@torch.no_grad()
def encoded(sae: SparseAutoencoder, rows: Tensor) -> SparseCode:
    """Codes of all rows."""
    return sae.encode(rows)


def share_of_random(vocabulary: Vocabulary, seed: int, count: int = 10_000) -> float:
    """Share of random directions with cosine .8 to a token."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(count, vocabulary.vectors.shape[1], generator=generator)
    nearest = nearest_cosines(random, vocabulary.vectors.float())
    return float((nearest.similarity >= CUTOFF).float().mean())


def chosen_of(found: Sequence[Fitted]) -> Fitted | None:
    """The best aligned of those within .005 of the plain one's R2 on validation, or None."""
    plain, *anchored = found
    floor = plain.r2["validation"] - R2_GIVEN_UP
    near = [each for each in anchored if each.r2["validation"] >= floor]
    return max(near, key=lambda each: each.aligned, default=None)


def least_of(found: Sequence[Fitted]) -> Fitted | None:
    """Of those that align 80% of their latents the best by R2 on validation, or None."""
    aligned = [each for each in found if each.aligned >= WANTED]
    return max(aligned, key=lambda each: each.r2["validation"], default=None)


def _fitted(
    shards: Path, anchor: VocabularyAnchor | None, fitting: Fitting, seed: int
) -> SparseAutoencoder:
    quieten()
    data = ActivationDataModule(
        str(shards), batch_size=fitting.batch_size, val_fraction=0, test_fraction=0
    )
    seed_everything(seed, verbose=False)
    module = SAEModule(
        d_sae=fitting.d_sae, selection=TopK(fitting.k), anchor=anchor, aux_k=AuxK(k_aux=64),
        optimizer=lambda weights: SAEAdam(weights, lr=fitting.lr),
    )  # fmt: skip
    Trainer(
        max_epochs=fitting.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    ).fit(module, data)  # fmt: skip
    return module.sae.eval()
