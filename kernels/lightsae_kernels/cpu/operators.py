"""What the custom operators run on CPU tensors; see `lightsae_kernels.operators`."""

from typing import TypeAlias

import torch
from torch import Tensor

from lightsae_kernels.cpu.decode import sparse_decode, sparse_residual, values_gradient
from lightsae_kernels.cpu.encode import (
    Plan,
    dense_gradients,
    encode_topk,
    evaluate_penalty,
    product_and_select,
    sparse_gradients,
)
from lightsae_kernels.cpu.gradients import LatentOrder, weight_gradient
from lightsae_kernels.cpu.gradients import latent_order as order_of
from lightsae_kernels.shared import Shared
from lightsae_kernels.types import Encoded, Support, Task

__all__ = [
    "decode_gradients",
    "encode",
    "encode_gradients",
    "latent_order",
    "order_sizes",
    "sparse_decode",
    "sparse_residual",
]

_Found: TypeAlias = tuple[Encoded, Tensor | None, Tensor | None]


def encode(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, task: Task) -> _Found:
    """Encode; no row norms and no activations are kept for the backward pass."""
    with torch.autocast("cpu", dtype=task.dtype, enabled=task.dtype != x.dtype):
        found = encode_topk(
            x, W_enc, b_enc, b_dec, task.k, regularizer=task.regularizer,
            batch_active_only=task.batch_active_only, eps=task.eps, indices=task.indices,
            batch_active=task.batch_active, process_group=task.process_group,
        )  # fmt: skip
    return found, None, None


def encode_gradients(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, found: Support, task: Task,
    order: list[Tensor], d_values: Tensor | None, d_penalty: Tensor | None, needed: list[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of x, W_enc, b_enc and b_dec; a regularizer's activations are made once more."""
    plan = Plan(
        task.k, task.regularizer, task.batch_active_only, task.eps, found.indices, found.active,
        None, task.dtype, _known(order, len(W_enc)), True,
    )  # fmt: skip
    values, indices = found.values, found.indices
    with torch.autocast("cpu", enabled=False):
        centred = x - b_dec
        coefficient = torch.zeros_like(values) if d_values is None else d_values * (values > 0)
        if plan.regularizer is None or d_penalty is None:
            return sparse_gradients(plan, coefficient, centred, W_enc, indices, needed)
        _, _, a = product_and_select(centred, W_enc, b_enc, plan)
        mask = found.active if plan.batch_active_only else None
        _, kept = evaluate_penalty(a, indices, mask, plan)
        assert kept is not None
        return dense_gradients(plan, kept, coefficient, d_penalty, centred, W_enc, indices, needed)


def decode_gradients(
    grad: Tensor, rows: Tensor | None, values: Tensor, indices: Tensor, W_dec: Tensor,
    order: list[Tensor], needed: list[bool],
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of values and W_dec, given that of the reconstructions: grad, times `rows` [B]."""
    grad = grad.contiguous() if rows is None else rows[:, None] * grad
    d_values = values_gradient(grad, indices, W_dec) if needed[0] else None
    d_W_dec = None
    if needed[1]:
        d_W_dec = weight_gradient(_known(order, len(W_dec)), indices, values, grad, len(W_dec))
    return d_values, d_W_dec


def latent_order(indices: Tensor, d_sae: int) -> list[Tensor]:
    """The pairs by latent, to be handed to both gradients."""
    return list(order_of(indices, d_sae))


def order_sizes(pairs: int, d_sae: int) -> list[int]:
    """How long the tensors of an order are."""
    return [pairs, pairs, d_sae]


def _known(order: list[Tensor], d_sae: int) -> Shared[LatentOrder]:
    shared: Shared[LatentOrder] = Shared()
    shared.get(d_sae, lambda: LatentOrder(*order))
    return shared
