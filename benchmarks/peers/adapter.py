"""What the worker and the adapters share. Runs in every environment: torch only."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

LEARNING_RATE = 3e-4


class Sizes(NamedTuple):
    """Shape of the problem: batch rows of width d_in, k of d_sae latents kept."""

    batch: int
    d_in: int
    d_sae: int
    k: int


class Trainer(NamedTuple):
    """What `build(sizes, sample, **options)` of an adapter returns.

    Attributes:
        step: Forward, loss, backward and optimizer on a batch, [B, d_in].
        reconstruct: Reconstruction of a batch, [B, d_in].
    """

    step: Callable[[Tensor], None]
    reconstruct: Callable[[Tensor], Tensor]
