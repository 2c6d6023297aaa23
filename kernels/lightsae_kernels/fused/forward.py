"""The fused encoder: product, selection, mask, penalty, in row blocks of bounded size."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from lightsae_kernels.flags import flag_on
from lightsae_kernels.fused.configs import ProductConfig
from lightsae_kernels.fused.encode import Taken, encode_fwd
from lightsae_kernels.fused.l1_l2_ratio import l1_l2_ratio_fwd
from lightsae_kernels.fused.select import group_size, maxima_columns, select_fwd
from lightsae_kernels.fused.support import support_fwd
from lightsae_kernels.fused.tune import product_config
from lightsae_kernels.memory import memory, rows_in_block
from lightsae_kernels.reference import norm_ratio
from lightsae_kernels.shared import narrow
from lightsae_kernels.types import FusedRegularizer, Group


class Plan(NamedTuple):
    """What is asked of one encoding, beside its tensors."""

    k: int
    regularizer: FusedRegularizer | None
    batch_active_only: bool
    eps: float
    indices: Tensor | None
    batch_active: Tensor | None
    process_group: Group
    dtype: torch.dtype
    will_differentiate: bool

    def keeps(self) -> bool:
        """Whether the activations of the whole batch stay: a second use follows, in two bytes."""
        masked_ratio = self.regularizer == "l1_l2_ratio" and self.batch_active_only
        used_again = masked_ratio or (self.regularizer is not None and self.will_differentiate)
        return used_again and self.dtype.itemsize == 2 and not memory().recompute


class Product(NamedTuple):
    """Operands of the encoder product in its dtype, contiguous, and the tiles it runs in."""

    x: Tensor
    W_enc: Tensor
    b_enc: Tensor
    config: ProductConfig

    @classmethod
    def of(cls, x: Tensor, W_enc: Tensor, b_enc: Tensor, dtype: torch.dtype) -> "Product":
        """Convert what is not of the product's dtype, dense or aligned to 16 bytes."""
        operands = (x.to(dtype), narrow(W_enc, dtype), b_enc.to(dtype))
        centred, weight, bias = (_aligned(t.contiguous()) for t in operands)
        return cls(centred, weight, bias, product_config(centred, weight))

    def run(self, block: slice, taken: Taken) -> None:
        """Multiply some of the rows."""
        encode_fwd(self.x[block], self.W_enc, self.b_enc, taken, self.config)

    def row_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The activations, made once more block by block."""
        B, N = len(self.x), len(self.W_enc)
        rows = rows_in_block(B, N, self.x.element_size(), self.config.block_b)
        buffer = self.x.new_empty(rows, N)
        for block in blocks(B, rows):
            a = buffer[: block.stop - block.start]
            self.run(block, Taken(a))
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


class Encoding(NamedTuple):
    """The outputs of an encoding and what its gradient needs.

    Attributes:
        values: [B, k].
        indices: [B, k] int64.
        penalty: Scalar.
        active: The mask, [d_sae] bool.
        kept: Activations of the whole batch, [B, d_sae], or None.
        l1: Row sums of Reg 2, [B] float32, or None.
        l2: Row norms of Reg 2, [B] float32, or None.
    """

    values: Tensor
    indices: Tensor
    penalty: Tensor
    active: Tensor
    kept: Tensor | None
    l1: Tensor | None
    l2: Tensor | None


def encode_topk_fwd(product: Product, plan: Plan) -> Encoding:
    """Encode centred inputs; see `lightsae_kernels.encode_topk`."""
    found = _select(product, plan)
    mask = plan.batch_active
    if mask is None:
        if plan.process_group is not None:
            dist.all_reduce(found.active, op=dist.ReduceOp.MAX, group=plan.process_group)
        mask = found.active.bool()
    restrict = mask if plan.batch_active_only else None
    penalty, l1, l2 = _float32(product.x, *()).zero_(), None, None
    if plan.regularizer == "off_support_l1":
        penalty = _off_support_l1(found, restrict, plan.indices)
    elif plan.regularizer == "l1_l2_ratio":
        l1, l2 = _norms(product, found, restrict)
        penalty = norm_ratio(l1, l2, plan.eps).sum() / max(len(l1), 1)
    return Encoding(found.values, found.indices, penalty, mask, found.kept, l1, l2)


def _select(product: Product, plan: Plan) -> Selection:
    """Run the product block by block and select in each block."""
    x, N, k, config = product.x, len(product.W_enc), plan.k, product.config
    B, given, group = len(x), plan.indices, group_size(N, k, config.block_n)
    keep = plan.keeps()
    rows = B if keep else rows_in_block(B, N, x.element_size(), config.block_b)
    a = x.new_empty(rows, N)
    maxima = None if given is not None else _maxima(x, rows, N, group)
    indices = torch.empty(B, k, dtype=torch.int64, device=x.device) if given is None else given
    active = torch.zeros(N, dtype=torch.int8, device=x.device)
    sums = norms = None
    if plan.regularizer == "off_support_l1":
        sums = _float32(x, -(-B // config.block_b), N)
    elif plan.regularizer == "l1_l2_ratio" and not plan.batch_active_only:
        norms = _float32(x, B, 2, -(-N // config.block_n))
    found = Selection(x.new_empty(B, k), indices, active, a if keep else None, sums, norms)
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
        product.run(block, part)
        outputs = (found.values[block], indices[block], active, flag)
        if part.maxima is None:
            support_fwd(a[here], *outputs)
        else:
            select_fwd(a[here], part.maxima, *outputs, group)
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


def first_of_row(indices: Tensor) -> Tensor:
    """Where an index occurs for the first time in its row, [B, k] bool: a given one may repeat."""
    latents, places = indices.sort(dim=1, stable=True)
    first = torch.ones_like(latents, dtype=torch.bool)
    first[:, 1:] = latents[:, 1:] != latents[:, :-1]
    return torch.empty_like(first).scatter_(1, places, first)


def _aligned(tensor: Tensor) -> Tensor:
    """A view may begin anywhere; the tiles spill registers where they cannot load 16 bytes."""
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def at_support(mask: Tensor, indices: Tensor) -> Tensor:
    """The mask at each index; one outside the dictionary is flagged and must not end the device."""
    return mask[indices.clamp(0, len(mask) - 1)]


def _norms(product: Product, found: Selection, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """l1 and l2 of each row: from the first pass, from what it kept, or by a second product."""
    B = len(product.x)
    if mask is None:
        assert found.norms is not None
        l1, squares = found.norms.sum(dim=2).unbind(dim=1)
    elif found.kept is not None:
        l1, squares = _float32(product.x, 2, B)
        l1_l2_ratio_fwd(found.kept, mask.to(torch.int8), l1, squares)
    else:
        norms = _float32(product.x, B, 2, -(-len(product.W_enc) // product.config.block_n))
        product.run(slice(0, B), Taken(norms=norms, mask=mask.to(torch.int8)))
        l1, squares = norms.sum(dim=2).unbind(dim=1)
    return l1, squares.sqrt()


def blocks(B: int, rows: int) -> Iterator[slice]:
    """Slices of `rows` that cover B rows."""
    for start in range(0, B, max(rows, 1)):
        yield slice(start, min(start + rows, B))


def _float32(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)
