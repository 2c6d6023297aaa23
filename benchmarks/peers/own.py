"""This package: what `SAEModule` does with one batch, in the order in which Lightning does it."""

from contextlib import nullcontext
from typing import Any

import torch
from adapter import LEARNING_RATE, Phases, Sizes, Trainer, compile_for
from lightsae_kernels import Encoded, reference
from torch import Tensor

from lightsae import sae as room
from lightsae.sae import Matryoshka, SparseAutoencoder, objective
from lightsae.training import SAEAdam
from lightsae.training.cuda_graph import CapturedStep, CudaRecorder, without_autocast
from lightsae.training.dead_latents import DeadLatentTracker

CHECKED_ROWS = 256
PREFIXES = [0.125, 0.25, 0.5]
# Latents that tie in bf16 may be chosen differently; a wrong kernel is off by far more.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 0.01, 0.1


def build(
    sizes: Sizes,
    sample: Tensor,
    regularizer: str = "",
    rule: str = "TopK",
    prefixes: bool = False,
    bf16: bool = False,
    one_pass: bool = False,
    graph: bool = False,
    defined: str = "",
    checked: bool = False,
) -> Trainer:
    """A step; `one_pass` takes `SAEAdam`, `defined` the definition "eager" or "compiled".

    `prefixes` are an eighth, a quarter, half and all of the dictionary.

    Raises:
        RuntimeError: If `checked` and the step is not what the definition does.
    """
    device = sample.device.type
    sae = SparseAutoencoder(sizes.d_in, sizes.d_sae, getattr(room, rule)(sizes.k))
    nested = Matryoshka(PREFIXES) if prefixes else None
    sae.initialize_(sample)
    penalty = getattr(room, regularizer)(weight=1e-3) if regularizer else None
    tracker = DeadLatentTracker(sizes.d_sae)
    optimizer = _optimizer(sae, one_pass, bf16)
    definition = _definition(sae, penalty, defined, sample.device)

    def dead(encoded: Encoded) -> Tensor:
        tracker.update(encoded)
        return tracker.dead(dead_after=10_000_000)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            if definition is not None:
                return definition(x / sae.scale)
            parts = objective(
                sae, x / sae.scale, regularizer=penalty, dead=dead, reconstruction=nested
            )
            return parts.loss

    def backward(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()

    def update() -> None:
        if not one_pass:
            sae.project_decoder_gradient_()
        optimizer.step()
        if not one_pass:
            sae.normalize_decoder_()

    if checked and definition is None:
        exact = _definition(sae, penalty, "eager", sample.device)
        _require_same(sae, forward, lambda x: exact(x / sae.scale), sample[:CHECKED_ROWS])
    phases = Phases(forward, backward, update)
    if graph:
        recorder = CudaRecorder(sample.device) if sample.is_cuda else Unrecorded()
        captured = CapturedStep(lambda x: _whole(phases, x), recorder)
        return Trainer(captured, sae, optimizer=optimizer)
    return Trainer.of(phases, sae, optimizer)


def _optimizer(sae: SparseAutoencoder, one_pass: bool, bf16: bool) -> torch.optim.Optimizer:
    if not one_pass:
        return torch.optim.Adam(sae.parameters(), lr=LEARNING_RATE, fused=True)
    optimizer = SAEAdam(sae.parameters(), lr=LEARNING_RATE)
    optimizer.keep_unit_rows(sae.W_dec)
    if bf16:
        optimizer.keep_copy(sae.W_enc, sae.keep_narrow("W_enc", torch.bfloat16))
        if sae.W_dec.is_cuda:
            optimizer.keep_copy(sae.W_dec, sae.keep_narrow("W_dec", torch.bfloat16))
    return optimizer


def _definition(sae: SparseAutoencoder, penalty: Any, how: str, device: torch.device) -> Any:
    """The loss by its definition, or None."""
    if not how:
        return None
    options = {} if penalty is None else {"regularizer": penalty.fused}

    def loss(x: Tensor) -> Tensor:
        weights = sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec
        encoded, left = reference.encode_residual(x, *weights, sae.selection.k, **options)
        weight = 0.0 if penalty is None else penalty.weight
        return left.error.mean() + weight * encoded.penalty

    return compile_for(device, loss) if how == "compiled" else loss


def _require_same(sae: SparseAutoencoder, fused: Any, defined: Any, x: Tensor) -> None:
    """Refuse a step whose loss or gradients differ from the definition's under the same autocast.

    Raises:
        RuntimeError: Naming what differs, by how much.
    """
    names, parameters = zip(*sae.named_parameters(), strict=True)

    def loss_and_gradients(loss_of: Any) -> dict[str, Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16):
            loss = loss_of(x)
        found = torch.autograd.grad(loss, parameters)
        return {"loss": loss.detach(), **dict(zip(names, found, strict=True))}

    found, expected = loss_and_gradients(fused), loss_and_gradients(defined)
    for name, exact in expected.items():
        error = float((found[name] - exact).norm() / exact.norm().clamp_min(1e-30))
        tolerance = LOSS_TOLERANCE if name == "loss" else GRADIENT_TOLERANCE
        if not error <= tolerance:
            raise RuntimeError(f"not timed: {name} is {error:.1%} off the definition's")


class Unrecorded:
    """Where there is no GPU to record, a step is run again instead."""

    def run(self, step: Any) -> Any:
        """What the step returns."""
        return step()

    def record(self, step: Any) -> Any:
        """The step."""
        return step


def _whole(phases: Phases, x: Tensor) -> Any:
    with torch.autocast(x.device.type, torch.bfloat16):
        loss = phases.forward(x)
        with without_autocast(x.device):
            phases.backward(loss)
            phases.update()
    return loss.detach()
