"""What the custom operators run as Triton kernels; see `lightsae_kernels.operators`."""

from typing import TypeAlias

import torch
from torch import Tensor

from lightsae_kernels import memory
from lightsae_kernels.flags import raise_where_nothing_waits
from lightsae_kernels.fused.backward import Operands, encode_topk_bwd
from lightsae_kernels.fused.forward import Encoding, Plan, Product, encode_topk_fwd
from lightsae_kernels.fused.functional import sparse_decode
from lightsae_kernels.fused.order import CHUNK, LatentOrder, partials_at_most
from lightsae_kernels.fused.order import latent_order as order_of
from lightsae_kernels.fused.residual import sparse_residual
from lightsae_kernels.fused.values_gradient import values_gradient_bwd
from lightsae_kernels.fused.weight_gradient import DecoderPairs, weight_gradient_bwd
from lightsae_kernels.types import Encoded, Support, Task

__all__ = [
    "decode_gradients",
    "encode",
    "encode_gradients",
    "keeps",
    "latent_order",
    "order_sizes",
    "sparse_decode",
    "sparse_residual",
]

_Found: TypeAlias = tuple[Encoded, Tensor | None, Tensor | None]


def keeps(task: Task) -> bool:
    """Whether the activations stay: task.keep says that a gradient will be asked for."""
    return _plan(task).keeps()


def encode(x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, task: Task) -> _Found:
    """Encode; the norms of the rows and the activations, if kept, come last."""
    given = None if task.indices is None else task.indices.contiguous()
    product = Product.of(x - b_dec, W_enc, b_enc, task.dtype)
    # What is kept was decided when the graph was made.
    with memory.bounded(recompute=not task.keep):
        found = encode_topk_fwd(product, _plan(task._replace(indices=given)))
    raise_where_nothing_waits(x.device)
    values, indices, penalty, active, kept, l1, l2 = found
    norms = None if l1 is None or l2 is None else torch.stack([l1, l2])
    return Encoded(values, indices, penalty, active), norms, kept


def encode_gradients(
    x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, found: Support, task: Task,
    order: list[Tensor], d_values: Tensor | None, d_penalty: Tensor | None, needed: list[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of x, W_enc, b_enc and b_dec; of activations that were not kept, block by block."""
    operands = Operands((x - b_dec).to(task.dtype), W_enc, b_enc, task.dtype)
    values, indices, active, norms, kept = found
    l1, l2 = (None, None) if norms is None else norms
    # The penalty itself is in no gradient.
    encoding = Encoding(values, indices, values.new_empty(()), active, kept, l1, l2)
    d = encode_topk_bwd(
        operands, encoding, _plan(task), _known(order, indices), d_values, d_penalty, of_x=needed[0]
    )
    d_b_dec = -(d.b_enc @ W_enc.float()) if needed[3] else None
    return d.x, d.W_enc, d.b_enc, d_b_dec


def decode_gradients(
    grad: Tensor, rows: Tensor | None, values: Tensor, indices: Tensor, W_dec: Tensor,
    order: list[Tensor], needed: list[bool],
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of values and W_dec, given that of the reconstructions: grad, times `rows` [B]."""
    grad, d_values, d_W_dec = grad.contiguous(), None, None
    if needed[0]:
        d_values = torch.empty(values.shape, dtype=torch.float32, device=grad.device)
        values_gradient_bwd(grad, indices.contiguous(), W_dec.contiguous(), d_values)
        d_values = d_values if rows is None else d_values * rows[:, None]
    if needed[1]:
        z = values.float() if rows is None else values.float() * rows[:, None]
        d_W_dec = torch.empty(W_dec.shape, dtype=torch.float32, device=grad.device)
        pairs = DecoderPairs(z.contiguous(), grad, d_W_dec)
        weight_gradient_bwd(_known(order, indices), None, pairs)
    return d_values, d_W_dec


def latent_order(indices: Tensor, d_sae: int) -> list[Tensor]:
    """The pairs by latent, to be handed to both gradients."""
    return list(order_of(indices, d_sae)[:5])


def order_sizes(pairs: int, d_sae: int) -> list[int]:
    """How long the tensors of an order are."""
    return [pairs, d_sae + 1, d_sae + pairs // CHUNK, d_sae + 1, d_sae + 1]


def _plan(task: Task) -> Plan:
    return Plan(
        task.k, task.regularizer, task.batch_active_only, task.eps, task.indices,
        task.batch_active, task.process_group, task.dtype, task.keep,
    )  # fmt: skip


def _known(order: list[Tensor], indices: Tensor) -> LatentOrder:
    pairs, offsets, owner, first, slots = order
    partials = partials_at_most(slots, indices.numel())
    return LatentOrder(pairs, offsets, owner, first, slots, partials, CHUNK)
