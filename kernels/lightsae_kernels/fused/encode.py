"""The fused encoder: product, selection, mask, penalty, in row blocks of bounded size.

Shapes: x [B, D] centred, W_enc [N, D], a [B, N], values and indices [B, K].
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from lightsae_kernels.flags import flag_on, raise_where_nothing_waits
from lightsae_kernels.fused.configs import ProductConfig
from lightsae_kernels.fused.encode_product import Taken, encode_norms, encode_product
from lightsae_kernels.fused.select import group_size, maxima_columns, select, select_given
from lightsae_kernels.fused.tune import product_config
from lightsae_kernels.memory import memory, rows_in_block
from lightsae_kernels.plan import EncodePlan
from lightsae_kernels.reference import norm_ratio
from lightsae_kernels.types import Encoder, Encoding


def centre(x: Tensor, b_dec: Tensor, dtype: torch.dtype) -> Tensor:
    """Centred inputs in the dtype of the product."""
    return (x - b_dec).to(dtype)


def keeps(plan: EncodePlan, differentiated: bool) -> bool:
    """Whether the activations of the whole batch stay: a second use follows, in two bytes."""
    masked_ratio = plan.regularizer == "l1_l2_ratio" and plan.batch_active_only
    used_again = masked_ratio or (plan.regularizer is not None and differentiated)
    return used_again and plan.dtype.itemsize == 2 and not memory().recompute


def encode_forward(x: Tensor, encoder: Encoder, plan: EncodePlan) -> Encoding:
    """Encode centred inputs."""
    product = Product.of(x, encoder, plan.dtype)
    found = _select(product, plan)
    active = plan.batch_active
    if active is None:
        if plan.process_group is not None:
            dist.all_reduce(found.active, op=dist.ReduceOp.MAX, group=plan.process_group)
        active = found.active.bool()
    mask, norms = plan.mask(active), None
    penalty = _float32(x).zero_()
    if plan.regularizer == "off_support_l1":
        penalty = _off_support_l1(found, mask, plan.indices)
    elif plan.regularizer == "l1_l2_ratio":
        l1, l2 = norms = _norms(product, found, mask)
        penalty = norm_ratio(l1, l2, plan.eps).sum() / max(len(x), 1)
    raise_where_nothing_waits(x.device)
    return Encoding(found.values, found.indices, penalty, active, norms, found.kept)


class Product(NamedTuple):
    """Operands of the encoder product in its dtype, contiguous, and the tiles it runs in."""

    x: Tensor
    W_enc: Tensor
    b_enc: Tensor
    config: ProductConfig

    @classmethod
    def of(cls, x: Tensor, encoder: Encoder, dtype: torch.dtype) -> "Product":
        """Convert what is not of the product's dtype, dense or aligned to 16 bytes."""
        operands = (x.to(dtype), encoder.weight(dtype), encoder.b.to(dtype))
        centred, weight, bias = (_aligned(t.contiguous()) for t in operands)
        return cls(centred, weight, bias, product_config(centred, weight))

    def row_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The activations, made once more block by block."""
        B, N = len(self.x), len(self.W_enc)
        rows = rows_in_block(B, N, self.x.element_size(), self.config.block_b)
        buffer = self.x.new_empty(rows, N)
        for block in blocks(B, rows):
            a = buffer[: block.stop - block.start]
            encode_product(self.x[block], self.W_enc, self.b_enc, Taken(a), self.config)
            yield block, a


class Selection(NamedTuple):
    """What the first pass over a batch leaves; tensors that no regularizer asked for are None.

    Attributes:
        values: [B, k].
        indices: [B, k] int64.
        active: Latents in the support of this process, [N] int8.
        kept: Activations of the whole batch, [B, N].
        sums: Column sums by tile row, [T, N] float32.
        norms: Row sums and squares by tile column, [B, 2, C] float32, over all latents.
    """

    values: Tensor
    indices: Tensor
    active: Tensor
    kept: Tensor | None
    sums: Tensor | None
    norms: Tensor | None


def _select(product: Product, plan: EncodePlan) -> Selection:
    """Run the product block by block and select in each block."""
    x, W_enc, b_enc, config = product
    (B, N), k = (len(x), len(W_enc)), plan.k
    given = None if plan.indices is None else plan.indices.contiguous()
    group = group_size(N, k, config.block_n)
    rows = B if plan.keep else rows_in_block(B, N, x.element_size(), config.block_b)
    a = x.new_empty(rows, N)
    maxima = None if given is not None else _maxima(x, rows, N, group)
    indices = torch.empty(B, k, dtype=torch.int64, device=x.device) if given is None else given
    active = torch.zeros(N, dtype=torch.int8, device=x.device)
    sums = norms = None
    if plan.regularizer == "off_support_l1":
        sums = _float32(x, -(-B // config.block_b), N)
    elif plan.regularizer == "l1_l2_ratio" and not plan.batch_active_only:
        norms = _float32(x, B, 2, -(-N // config.block_n))
    found = Selection(x.new_empty(B, k), indices, active, a if plan.keep else None, sums, norms)
    flag = flag_on(x.device, "encode_topk")
    for block in blocks(B, rows):
        here = slice(0, block.stop - block.start)
        part = Taken(
            a[here],
            None if maxima is None else maxima[here],
            None if sums is None else sums[block.start // config.block_b :],
            None if norms is None else norms[block],
            group=group,
        )
        encode_product(x[block], W_enc, b_enc, part, config)
        outputs = (found.values[block], indices[block], active, flag)
        if part.maxima is None:
            select_given(a[here], *outputs)
        else:
            select(a[here], part.maxima, *outputs, group)
    return found


def _maxima(x: Tensor, rows: int, N: int, group: int) -> Tensor:
    """Memory for the maxima of each row; what no group fills is zero."""
    maxima = x.new_empty(rows, maxima_columns(N, group))
    maxima[:, -(-N // group) :].zero_()
    return maxima


def _off_support_l1(found: Selection, mask: Tensor | None, given: Tensor | None) -> Tensor:
    """Masked column sums less what was selected, over the batch."""
    assert found.sums is not None
    if given is None and found.values.shape[1] == found.sums.shape[1]:
        return found.sums.new_zeros(())
    total, selected = found.sums.sum(dim=0, dtype=torch.float64), found.values.double()
    if given is not None:
        selected = selected * first_of_row(given)
    if mask is not None:
        total, selected = total * mask, selected * at_support(mask, found.indices)
    return ((total.sum() - selected.sum()) / max(len(selected), 1)).clamp_min_(0.0).float()


def _norms(product: Product, found: Selection, mask: Tensor | None) -> Tensor:
    """l1 and l2 of each row: from the first pass, from what it kept, or by a second product."""
    x, W_enc, b_enc, config = product
    if mask is None:
        assert found.norms is not None
        norms = found.norms.sum(dim=2).t().contiguous()
    elif found.kept is not None:
        norms = _float32(x, 2, len(x))
        encode_norms(found.kept, mask.to(torch.int8), norms)
    else:
        parts = _float32(x, len(x), 2, -(-len(W_enc) // config.block_n))
        taken = Taken(norms=parts, mask=mask.to(torch.int8))
        encode_product(x, W_enc, b_enc, taken, config)
        norms = parts.sum(dim=2).t().contiguous()
    norms[1].sqrt_()
    return norms


def first_of_row(indices: Tensor) -> Tensor:
    """Where an index occurs for the first time in its row, [B, k] bool: a given one may repeat."""
    latents, places = indices.sort(dim=1, stable=True)
    first = torch.ones_like(latents, dtype=torch.bool)
    first[:, 1:] = latents[:, 1:] != latents[:, :-1]
    return torch.empty_like(first).scatter_(1, places, first)


def at_support(mask: Tensor, indices: Tensor) -> Tensor:
    """The mask at each index; one outside the dictionary is flagged and must not end the device."""
    return mask[indices.clamp(0, len(mask) - 1)]


def blocks(B: int, rows: int) -> Iterator[slice]:
    """Slices of `rows` that cover B rows."""
    for start in range(0, B, max(rows, 1)):
        yield slice(start, min(start + rows, B))


def _aligned(tensor: Tensor) -> Tensor:
    """A view may begin anywhere; the tiles spill registers where they cannot load 16 bytes."""
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def _float32(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)
