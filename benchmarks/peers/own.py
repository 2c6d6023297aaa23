"""This package: what `SAEModule` does with one batch, in the order in which Lightning does it."""

from contextlib import nullcontext
from typing import Any

import torch
from adapter import LEARNING_RATE, Phases, Sizes, Trainer
from lightsae_kernels import Encoded, reference
from torch import Tensor

from lightsae import sae as room
from lightsae.sae import SparseAutoencoder, TopK, objective
from lightsae.training import SAEAdam
from lightsae.training.cuda_graph import CapturedStep, CudaRecorder, without_autocast
from lightsae.training.dead_latents import DeadLatentTracker


def build(
    sizes: Sizes,
    sample: Tensor,
    regularizer: str = "",
    bf16: bool = False,
    one_pass: bool = False,
    graph: bool = False,
    defined: str = "",
) -> Trainer:
    """A step; `one_pass` takes `SAEAdam`, `defined` the definition "eager" or "compiled"."""
    device = sample.device.type
    sae = SparseAutoencoder(sizes.d_in, sizes.d_sae, TopK(sizes.k))
    sae.initialize_(sample)
    penalty = getattr(room, regularizer)(weight=1e-3) if regularizer else None
    tracker = DeadLatentTracker(sizes.d_sae)
    optimizer = _optimizer(sae, one_pass, bf16)
    definition = _definition(sae, penalty, defined)

    def dead(encoded: Encoded) -> Tensor:
        tracker.update(encoded)
        return tracker.dead(dead_after=10_000_000)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            if definition is not None:
                return definition(x / sae.scale)
            return objective(sae, x / sae.scale, regularizer=penalty, dead=dead).loss

    def backward(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()

    def update() -> None:
        if not one_pass:
            sae.project_decoder_gradient_()
        optimizer.step()
        if not one_pass:
            sae.normalize_decoder_()

    phases = Phases(forward, backward, update)
    if graph:
        captured = CapturedStep(lambda x: _whole(phases, x), CudaRecorder(sample.device))
        return Trainer(captured, sae, optimizer=optimizer)
    return Trainer.of(phases, sae, optimizer)


def _optimizer(sae: SparseAutoencoder, one_pass: bool, bf16: bool) -> torch.optim.Optimizer:
    if not one_pass:
        return torch.optim.Adam(sae.parameters(), lr=LEARNING_RATE, fused=True)
    optimizer = SAEAdam(sae.parameters(), lr=LEARNING_RATE)
    optimizer.keep_unit_rows(sae.W_dec)
    if bf16:
        optimizer.keep_copy(sae.W_enc, sae.keep_narrow("W_enc", torch.bfloat16))
    return optimizer


def _definition(sae: SparseAutoencoder, penalty: Any, how: str) -> Any:
    """The loss by its definition, or None."""
    if not how:
        return None
    options = {} if penalty is None else {"regularizer": penalty.fused}

    def loss(x: Tensor) -> Tensor:
        weights = sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec
        encoded, left = reference.encode_residual(x, *weights, sae.selection.k, **options)
        weight = 0.0 if penalty is None else penalty.weight
        return left.error.mean() + weight * encoded.penalty

    return torch.compile(loss) if how == "compiled" else loss


def _whole(phases: Phases, x: Tensor) -> Any:
    with torch.autocast(x.device.type, torch.bfloat16):
        loss = phases.forward(x)
        with without_autocast(x.device):
            phases.backward(loss)
            phases.update()
    return loss.detach()
