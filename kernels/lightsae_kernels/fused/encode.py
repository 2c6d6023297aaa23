"""The fused encoder: product, selection, mask, penalty, in row blocks of bounded size.

A block is multiplied and selected from by the fused product, whose tiles leave the group maxima
beside the activations, or by the library's, whose pre-activations are selected from while they are
in L2. `configs` says which.

Shapes: x [B, D] centred, W_enc [N, D], a [B, N] activations or pre-activations, values and indices
[B, K].
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
import triton
from torch import Tensor

from lightsae_kernels.encode_plan import EncodePlan
from lightsae_kernels.fault_flags import Flag, flag_on, raise_where_nothing_waits, unwatched
from lightsae_kernels.fused.encode_penalty import column_sums, row_norms
from lightsae_kernels.fused.encode_product import Taken, encode_product
from lightsae_kernels.fused.select import (
    group_size,
    maxima_columns,
    select,
    select_given,
    select_in_banks,
)
from lightsae_kernels.fused.tile_configs import ProductConfig, library_rows, product_config
from lightsae_kernels.memory import memory, rows_in_block
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
    flag = flag_on(x.device, "encode_topk")
    found = _select(product, plan, flag)
    active, used = plan.batch_active, plan.used(found.values, found.indices)
    if active is None:
        # Of the kernels' own mask only candidates that are used stay.
        mine = found.active if used is None else _active_where(used, found)
        active = _batch_active(mine, plan, flag)
    mask, norms = plan.mask(active), None
    penalty = _float32(x).zero_()
    if plan.regularizer == "off_support_l1":
        penalty = _off_support_l1(found, mask, plan.indices)
    elif plan.regularizer == "l1_l2_ratio":
        l1, l2 = norms = _norms(product, found, mask)
        penalty = norm_ratio(l1, l2, plan.eps).sum() / max(len(x), 1)
    raise_where_nothing_waits(x.device)
    return Encoding(found.values, found.indices, penalty, active, norms, found.kept, used)


class Product(NamedTuple):
    """Operands of the encoder product in its dtype, contiguous, and who multiplies them.

    Attributes:
        x: Centred inputs, [B, D].
        W_enc: [N, D].
        b_enc: [N].
        config: Tiles of the fused product; None is the library's.
    """

    x: Tensor
    W_enc: Tensor
    b_enc: Tensor
    config: ProductConfig | None

    @classmethod
    def of(cls, x: Tensor, encoder: Encoder, dtype: torch.dtype) -> "Product":
        """Convert what is not of the product's dtype, dense or aligned to 16 bytes."""
        operands = (x.to(dtype), encoder.weight(dtype), encoder.b.to(dtype))
        centred, weight, bias = (_aligned(t.contiguous()) for t in operands)
        config = product_config(centred, weight, lambda c: _time(cls(centred, weight, bias, c)))
        return cls(centred, weight, bias, config)

    @property
    def rows(self) -> int:
        """Rows of activations that exist at a time where they are not kept."""
        B, N, size = len(self.x), len(self.W_enc), self.x.element_size()
        if self.config is not None:
            return rows_in_block(B, N, size, self.config.block_b)
        rows = library_rows(self.x.device, N * size)
        return min(rows, rows_in_block(B, N, size, 16))

    def multiply(self, block: slice, out: Tensor) -> None:
        """Activations of some rows, or pre-activations; the same bits wherever they are made."""
        if self.config is not None:
            encode_product(self.x[block], self.W_enc, self.b_enc, Taken(out), self.config)
            return
        for part in blocks(len(out), self.rows):
            rows = self.x[block.start + part.start : block.start + part.stop]
            torch.addmm(self.b_enc, rows, self.W_enc.t(), out=out[part])

    def row_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """All of them, made once more block by block."""
        B, N = len(self.x), len(self.W_enc)
        tile = self.rows if self.config is None else self.config.block_b
        rows = rows_in_block(B, N, self.x.element_size(), tile)
        buffer = self.x.new_empty(rows, N)
        for block in blocks(B, rows):
            a = buffer[: block.stop - block.start]
            self.multiply(block, a)
            yield block, a


class Selection(NamedTuple):
    """What the first pass over a batch leaves; tensors that no regularizer asked for are None.

    Attributes:
        values: [B, k].
        indices: [B, k] int64.
        active: Latents in the support of this process, [N] int8.
        block: Memory of a row block, where the norms need another product.
        kept: Activations or pre-activations of the whole batch, [B, N].
        sums: Column sums by tile row or row block, [T, N] float32.
        norms: Row sums and squares by tile column or of the row, [B, 2, C] float32, over all
            latents.
    """

    values: Tensor
    indices: Tensor
    active: Tensor
    block: Tensor | None
    kept: Tensor | None
    sums: Tensor | None
    norms: Tensor | None


def _select(product: Product, plan: EncodePlan, flag: Flag) -> Selection:
    """Run the product block by block and select in each block."""
    x, config = product.x, product.config
    (B, N), k = (len(x), len(product.W_enc)), plan.k
    given = None if plan.indices is None else plan.indices.contiguous()
    bank = plan.bank if given is None else None
    group = group_size(N, k) if config is None else group_size(N, k, config.block_n)
    # Only the library multiplies a kept batch in blocks.
    step = B if plan.keep and config is not None else product.rows
    a = x.new_empty(B if plan.keep else step, N)
    maxima = None if given is not None or bank else _maxima(x, step, N, group)
    indices = torch.empty(B, k, dtype=torch.int64, device=x.device) if given is None else given
    active = torch.zeros(N, dtype=torch.int8, device=x.device)
    tile = (step, N) if config is None else (config.block_b, config.block_n)
    sums = norms = None
    if plan.regularizer == "off_support_l1":
        sums = _float32(x, -(-B // max(tile[0], 1)), N)
    elif plan.regularizer == "l1_l2_ratio" and not plan.batch_active_only:
        norms = _float32(x, B, 2, -(-N // tile[1]))
    kept, again = (a, None) if plan.keep else (None, a)
    if config is not None or plan.regularizer != "l1_l2_ratio" or norms is not None:
        again = None
    found = Selection(x.new_empty(B, k), indices, active, again, kept, sums, norms)
    for block in blocks(B, step):
        here = block if plan.keep else slice(0, block.stop - block.start)
        part = Taken(
            a[here],
            None if maxima is None else maxima[: block.stop - block.start],
            None if sums is None else sums[block.start // tile[0] :],
            None if norms is None else norms[block],
            group=group,
        )
        outputs = (found.values[block], indices[block], active, flag)
        if config is None:
            product.multiply(block, a[here])
            _select_from_l2(part, *outputs, bank)
        else:
            encode_product(x[block], product.W_enc, product.b_enc, part, config)
            _select_from(part, *outputs, bank)
    return found


def _select_from(
    part: Taken, values: Tensor, indices: Tensor, active: Tensor, flag: Flag, bank: int | None,
    *, scan: bool = False,
) -> None:  # fmt: skip
    """Select by the maxima; without them within banks, or at the indices that are there."""
    assert part.a is not None
    if bank is not None:
        select_in_banks(part.a, values, indices, active, flag, bank)
    elif part.maxima is None:
        select_given(part.a, values, indices, active, flag)
    else:
        outputs = (values, indices, active, flag)
        norms = part.norms if scan else None
        select(part.a, part.maxima, *outputs, part.group, scan=scan, norms=norms)


def _select_from_l2(
    part: Taken, values: Tensor, indices: Tensor, active: Tensor, flag: Flag, bank: int | None
) -> None:
    """Select from a block of pre-activations, and take from it what a regularizer asks for."""
    assert part.a is not None
    _select_from(part, values, indices, active, flag, bank, scan=True)
    if part.sums is not None:
        column_sums(part.a, part.sums[0])
    if part.norms is not None and part.maxima is None:
        by_row = _float32(part.a, 2, len(part.a))
        row_norms(part.a, None, by_row)
        part.norms.copy_(by_row.t()[:, :, None])


def _maxima(x: Tensor, rows: int, N: int, group: int) -> Tensor:
    """Memory for the maxima of each row; what no group fills is zero."""
    maxima = x.new_empty(rows, maxima_columns(N, group))
    maxima[:, -(-N // group) :].zero_()
    return maxima


def _active_where(used: Tensor, found: Selection) -> Tensor:
    """Latents that are used somewhere in the batch, [N] int8."""
    # Only an index outside the dictionary, which the flag tells, is not among its latents.
    at = found.indices.clamp(0, len(found.active) - 1).reshape(-1)
    marks = used.reshape(-1).to(found.active.dtype)
    return torch.zeros_like(found.active).scatter_reduce_(0, at, marks, "amax")


def _batch_active(active: Tensor, plan: EncodePlan, flag: Flag) -> Tensor:
    """The mask over all ranks; what one of them met stops the updates of all."""
    if plan.process_group is None:
        return active.bool()
    both = torch.cat([active, flag.fault.to(active.dtype)])
    dist.all_reduce(both, op=dist.ReduceOp.MAX, group=plan.process_group)
    flag.fault.copy_(both[-1:])
    return both[:-1].bool()


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
        row_norms(found.kept, mask.to(torch.int8), norms)
    elif config is not None:
        parts = _float32(x, len(x), 2, -(-len(W_enc) // config.block_n))
        taken = Taken(norms=parts, mask=mask.to(torch.int8))
        encode_product(x, W_enc, b_enc, taken, config)
        norms = parts.sum(dim=2).t().contiguous()
    else:
        assert found.block is not None
        norms = _norms_from_l2(product, mask.to(torch.int8), found.block)
    norms[1].sqrt_()
    return norms


def _norms_from_l2(product: Product, mask: Tensor, buffer: Tensor) -> Tensor:
    """Masked sums and sums of squares of each row, [2, B], from blocks that are made once more."""
    norms = _float32(product.x, 2, len(product.x))
    for block in blocks(len(product.x), len(buffer)):
        a = buffer[: block.stop - block.start]
        product.multiply(block, a)
        row_norms(a, mask, norms[:, block])
    return norms


def _time(product: Product) -> float:
    """Median milliseconds of a product and its selection, over the rows that exist at a time."""
    if product.config is not None:
        product = product._replace(x=product.x[: product.rows])
    plan = EncodePlan(min(32, len(product.W_enc)), product.x.dtype)
    flag = unwatched(product.x.device)
    try:
        run = lambda: _select(product, plan, flag)  # noqa: E731
        milliseconds = triton.testing.do_bench(run, warmup=5, rep=20, return_mode="median")
    except triton.OutOfResources:
        # A relative of the architecture that the table was made for, with less shared memory.
        return float("inf")
    return float(milliseconds) / len(product.x)


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
