"""This package: what `SAEModule` does with one batch, in the order in which Lightning does it."""

from contextlib import nullcontext

import torch
from adapter import LEARNING_RATE, Sizes, Trainer
from lightsae_kernels import Encoded
from torch import Tensor

from lightsae import sae as room
from lightsae.sae import SparseAutoencoder, TopK, objective
from lightsae.training.dead import DeadLatentTracker


def build(sizes: Sizes, sample: Tensor, regularizer: str = "", bf16: bool = False) -> Trainer:
    sae = SparseAutoencoder(sizes.d_in, sizes.d_sae, TopK(sizes.k))
    sae.initialize_(sample)
    penalty = getattr(room, regularizer)(weight=1e-3) if regularizer else None
    tracker = DeadLatentTracker(sizes.d_sae)
    optimizer = torch.optim.Adam(sae.parameters(), lr=LEARNING_RATE, fused=True)

    def dead(encoded: Encoded) -> Tensor:
        tracker.update(encoded)
        return tracker.dead(dead_after=10_000_000)

    def step(x: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            parts = objective(sae, x / sae.scale, regularizer=penalty, dead=dead)
        optimizer.zero_grad()
        parts.loss.backward()
        sae.project_decoder_gradient_()
        optimizer.step()
        sae.normalize_decoder_()

    return Trainer(step, sae)
