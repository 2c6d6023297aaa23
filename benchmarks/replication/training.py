"""One autoencoder of a study: the package's own objective and optimizer over rows in memory."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from lightsae_kernels import Encoded
from replication.rules import RULES
from torch import Tensor

from lightsae.sae import (
    AuxK,
    L1L2Ratio,
    MonosemanticityLoss,
    OffSupportL1,
    Regularizer,
    SparseAutoencoder,
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
        rule: Name of the selection rule and of the loss that goes with it, of `RULES`.
    """

    k: int
    d_sae: int = 512
    epochs: int = 100
    batch_size: int = 1024
    learning_rate: float = 1e-3
    aux_k: AuxK = field(default_factory=AuxK)
    warmup_share: float = 0.8
    decay_share: float = 0.2
    rule: str = "TopK"

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


class Training:
    """The steps of one autoencoder.

    Args:
        sae: The autoencoder, as it is to begin.
        fit: What it is trained with.
        setting: What all autoencoders share.
        rows: Training rows, from which the length of the run follows.
    """

    def __init__(self, sae: SparseAutoencoder, fit: Fit, setting: Setting, rows: int) -> None:
        self.sae, self.setting = sae, setting
        steps = setting.steps(rows)
        self._optimizer = SAEAdam(sae.parameters(), lr=setting.learning_rate)
        self._optimizer.keep_unit_rows(sae.W_dec)
        decay_steps = round(setting.decay_share * steps)
        self._schedule = WarmupDecay(self._optimizer, steps, decay_steps=decay_steps)
        self._regularizer = fit.regularizer(round(setting.warmup_share * steps))
        self._tracker = DeadLatentTracker(setting.d_sae)
        self._step = 0

    def step(self, batch: Tensor) -> None:
        """One optimizer step on rows [B, d_in]."""
        regularizer = self._regularizer
        parts = objective(
            self.sae,
            self.sae.normalize(batch).x,
            regularizer=regularizer,
            aux_k=self.setting.aux_k,
            dead=self._dead,
            embeddings=batch,
            regularizer_weight=None if regularizer is None else regularizer.weight_at(self._step),
            reconstruction=RULES[self.setting.rule].reconstruction,
        )
        self._optimizer.zero_grad(set_to_none=True)
        parts.loss.backward()
        self._optimizer.step()
        self._schedule.step()
        self._step += 1

    def _dead(self, encoded: Encoded) -> Tensor:
        aux_k, setting = self.setting.aux_k, self.setting
        self._tracker.update(encoded, aux_k.fired_above)
        return self._tracker.dead(aux_k.dead_after_rows(setting.d_sae, setting.k))


def train(fit: Fit, setting: Setting, x: Tensor) -> SparseAutoencoder:
    """An autoencoder on rows x [rows, d_in]; the seed decides its weights and the batches.

    Variants of one seed start from the same weights and see the same batches, whatever the rule.
    """
    torch.manual_seed(fit.seed)
    selection = RULES[setting.rule].selection(setting.k, setting.d_sae)
    sae = SparseAutoencoder(x.shape[1], setting.d_sae, selection)
    sae.initialize_(x)
    training = Training(sae, fit, setting, len(x))
    generator = torch.Generator().manual_seed(fit.seed)
    for _ in range(setting.epochs):
        order = torch.randperm(len(x), generator=generator)
        for chosen in order.split(setting.batch_size):
            training.step(x[chosen])
    return sae.requires_grad_(False)
