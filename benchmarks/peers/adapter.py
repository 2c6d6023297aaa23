"""What the worker and the adapters share. Runs in every environment: torch only."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LEARNING_RATE = 3e-4


class Sizes(NamedTuple):
    """Shape of the problem: batch rows of width d_in, k of d_sae latents kept."""

    batch: int
    d_in: int
    d_sae: int
    k: int


def compile_for(device: torch.device, function: Callable) -> Callable:
    """Under torch.compile for one shape; on the CPU without its code generator."""
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    return torch.compile(function, dynamic=False, backend=backend)


class Phases(NamedTuple):
    """The three parts of a step.

    Attributes:
        forward: Loss of a batch, [B, d_in].
        backward: Gradients of the loss.
        update: Optimizer and what follows it.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], None]
    update: Callable[[], None]


class Trainer(NamedTuple):
    """What `build(sizes, sample, **options)` of an adapter returns.

    Attributes:
        step: Forward, loss, backward and optimizer on a batch, [B, d_in].
        reconstruct: Reconstruction of a batch, [B, d_in].
        phases: The step in parts, where it can be taken apart.
        optimizer: The one that steps, where it can be had.
    """

    step: Callable[[Tensor], object]
    reconstruct: Callable[[Tensor], Tensor] | None
    phases: Phases | None = None
    optimizer: torch.optim.Optimizer | None = None

    @classmethod
    def of(
        cls,
        phases: Phases,
        reconstruct: Callable[[Tensor], Tensor] | None,
        optimizer: torch.optim.Optimizer | None,
    ) -> "Trainer":
        """One whose step is its phases in turn."""

        def step(x: Tensor) -> None:
            phases.backward(phases.forward(x))
            phases.update()

        return cls(step, reconstruct, phases, optimizer)
