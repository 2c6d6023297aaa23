"""Whole training steps of a shape, as `SAEModule` takes them but without Lightning around."""

import contextlib
from statistics import median
from time import perf_counter

import torch

from lightsae.planning.shape import Shape
from lightsae.sae import L1L2Ratio, OffSupportL1, Regularizer, SparseAutoencoder, TopK
from lightsae.sae.losses.objective import objective
from lightsae.training.module_parts.decoder_upkeep import leave_decoder_to
from lightsae.training.optimizer import SAEAdam

_REGULARIZERS = {"off_support_l1": OffSupportL1, "l1_l2_ratio": L1L2Ratio}


def seconds_of_step(shape: Shape, device: torch.device, steps: int = 3) -> float:
    """The median of some steps after one that is not counted.

    Args:
        shape: The sizes; without AuxK.
        device: Where.
        steps: How many.

    Example:
        >>> seconds_of_step(Shape(d_in=8, d_sae=32, k=4, batch=16), torch.device("cpu")) > 0
        True
    """
    sae = SparseAutoencoder(shape.d_in, shape.d_sae, TopK(shape.k)).to(device)
    optimizer = SAEAdam(sae.parameters(), lr=1e-4, state_dtype=shape.state_dtype)  # type: ignore[arg-type]
    dtype = getattr(torch, shape.product)
    leave_decoder_to(optimizer, sae, clipped=False, mixed=dtype if shape.mixed else None)
    made = _REGULARIZERS.get(shape.regularizer)
    regularizer: Regularizer | None = None if made is None else made(1e-3)
    x = torch.randn(shape.batch, shape.d_in, device=device)
    times = []
    for _ in range(steps + 1):
        begun = perf_counter()
        with _autocast(shape, device, dtype):
            loss = objective(sae, sae.normalize(x).x, regularizer=regularizer).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(perf_counter() - begun)
    return median(times[1:])


def _autocast(
    shape: Shape, device: torch.device, dtype: torch.dtype
) -> contextlib.AbstractContextManager[object]:
    if not shape.mixed:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)
