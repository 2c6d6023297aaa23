"""One autoencoder of a study: the package's own objective and optimizer over rows in memory."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from lightsae_kernels import Encoded
from torch import Tensor

from lightsae.sae import (
    AuxK,
    L1L2Ratio,
    MonosemanticityLoss,
    OffSupportL1,
    Regularizer,
    SparseAutoencoder,
    TopK,
    objective,
)
from lightsae.training import DeadLatentTracker, SAEAdam, WarmupDecay

BASELINE = "baseline"
VARIANTS: dict[str, type[Regularizer]] = {
    "Reg 1": OffSupportL1,
    "Reg 2": L1L2Ratio,
    "MonoLoss": MonosemanticityLoss,
}


@dataclass(frozen=True)
class Setting:
    """What all autoencoders of a study share.

    Attributes:
        k: Latents per row.
        d_sae: Size of the dictionary.
        epochs: Passes over the training rows.
        batch_size: Rows per step; the last batch of an epoch may have fewer.
        learning_rate: Of Adam.
        aux_k: Settings of the auxiliary loss.
        warmup_share: Share of the steps over which lambda rises from 0.
        decay_share: Share of the steps, the last ones, over which the learning rate falls to 0.
    """

    k: int
    d_sae: int = 512
    epochs: int = 100
    batch_size: int = 1024
    learning_rate: float = 1e-3
    aux_k: AuxK = field(default_factory=AuxK)
    warmup_share: float = 0.8
    decay_share: float = 0.2

    def steps(self, rows: int) -> int:
        """Optimizer steps on so many training rows."""
        return self.epochs * math.ceil(rows / self.batch_size)


class Fit(NamedTuple):
    """One autoencoder: a variant, its lambda, a seed, and whether the batch-active mask is on."""

    variant: str = BASELINE
    weight: float = 0.0
    seed: int = 0
    masked: bool = True

    @property
    def folder(self) -> str:
        """Name of the folder that keeps it."""
        mask = "" if self.masked else "-unmasked"
        return f"{self.variant.lower().replace(' ', '')}-{self.weight:g}{mask}-seed{self.seed}"

    def regularizer(self, weight_warmup: int = 0) -> Regularizer | None:
        """The penalty it is trained with."""
        if self.variant == BASELINE:
            return None
        made = VARIANTS[self.variant](self.weight, weight_warmup=weight_warmup)
        if not self.masked:
            made.batch_active_only = False
        return made


def train(fit: Fit, setting: Setting, x: Tensor) -> SparseAutoencoder:
    """An autoencoder on rows x [rows, d_in]; the seed decides its weights and the batches.

    Variants of one seed start from the same weights and see the same batches.
    """
    torch.manual_seed(fit.seed)
    sae = SparseAutoencoder(x.shape[1], setting.d_sae, TopK(setting.k))
    sae.initialize_(x)
    tracker = DeadLatentTracker(setting.d_sae)
    optimizer = SAEAdam(sae.parameters(), lr=setting.learning_rate)
    optimizer.keep_unit_rows(sae.W_dec)
    steps = setting.steps(len(x))
    schedule = WarmupDecay(optimizer, steps, decay_steps=round(setting.decay_share * steps))
    regularizer = fit.regularizer(round(setting.warmup_share * steps))
    dead_after = setting.aux_k.dead_after_rows(setting.d_sae, setting.k)

    def dead(encoded: Encoded) -> Tensor:
        tracker.update(encoded, setting.aux_k.fired_above)
        return tracker.dead(dead_after)

    generator, step = torch.Generator().manual_seed(fit.seed), 0
    for _ in range(setting.epochs):
        order = torch.randperm(len(x), generator=generator)
        for chosen in order.split(setting.batch_size):
            batch = x[chosen]
            parts = objective(
                sae,
                sae.normalize(batch).x,
                regularizer=regularizer,
                aux_k=setting.aux_k,
                dead=dead,
                embeddings=batch,
                regularizer_weight=None if regularizer is None else regularizer.weight_at(step),
            )
            optimizer.zero_grad(set_to_none=True)
            parts.loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
    return sae.requires_grad_(False)
