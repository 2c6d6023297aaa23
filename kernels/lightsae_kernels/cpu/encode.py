"""Encoder product, Top-k and regularizer over row blocks that stay in cache.

Only a regularizer keeps a [B, d_sae], in a reused buffer; `encode_gradient` goes on from it.

Shapes: x [B, d_in] centred, W_enc [d_sae, d_in], a [B, d_sae].
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lightsae_kernels import reference
from lightsae_kernels.argument_checks import require_finite_activations
from lightsae_kernels.cpu import workspace
from lightsae_kernels.cpu.above import Pairs, pairs_above, pairs_above_screened
from lightsae_kernels.cpu.bf16_screen import pays, screened_topk, screening_pays
from lightsae_kernels.cpu.select import select_in_banks
from lightsae_kernels.encode_plan import EncodePlan
from lightsae_kernels.types import Encoder, Encoding

PRODUCT_BYTES = 12 << 20
PASS_BYTES = 1 << 20


def centre(x: Tensor, b_dec: Tensor, dtype: torch.dtype) -> Tensor:
    """Centred inputs in their own dtype, whatever that of the product."""
    return x - b_dec


def keeps(plan: EncodePlan, differentiated: bool) -> bool:
    """Whether the activations stay until the backward pass."""
    return differentiated and plan.regularizer is not None


def encode_forward(x: Tensor, encoder: Encoder, plan: EncodePlan) -> Encoding:
    """Encode centred inputs."""
    if plan.above is None:
        values, indices, a = product_and_select(x, encoder, plan)
        candidates = None
    else:
        values, indices, candidates, a = product_and_select_above(x, encoder, plan)
    require_finite_activations(values)
    active, used = plan.batch_active, plan.used(values, indices, candidates)
    selects = plan.regularizer is None and plan.indices is None
    if used is not None and used is not candidates and selects:
        # Nothing counts candidates that are not used: the rest of the step is spared their places.
        values, indices, used = Pairs.of(values, indices, used).padded(len(x))
    if active is None:
        active = reference.batch_active_mask(indices, len(encoder.W), plan.process_group, used)
    penalty, norms = evaluate_penalty(a, indices, plan.mask(active), plan)
    if a is not None and not plan.keep:
        workspace.give(a)
        a = None
    return Encoding(values, indices, penalty, active, norms, a, used)


def product_and_select(
    centred: Tensor, encoder: Encoder, plan: EncodePlan
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Values and indices of every row, and all pre-activations if a regularizer wants them."""
    dtype, d_sae = plan.dtype, len(encoder.W)
    free = plan.regularizer is None and plan.indices is None and plan.bank is None
    if free and pays(centred, encoder.W, plan):
        return *screened_topk(centred, encoder, plan.k), None
    x, weight, bias = centred.to(dtype), encoder.weight(dtype).t(), encoder.b.to(dtype)
    rows = len(x)
    values = torch.empty(rows, plan.k, dtype=dtype)
    indices = plan.indices if plan.indices is not None else torch.empty(
        rows, plan.k, dtype=torch.int64
    )  # fmt: skip
    row_bytes = d_sae * dtype.itemsize
    keep = plan.regularizer is not None
    product_rows = rows if keep else min(rows, max(1, PRODUCT_BYTES // row_bytes))
    buffer = workspace.take((product_rows, d_sae), dtype)
    if keep:
        # Each product packs the weight anew: where all of it is kept, one takes a sixth less time.
        torch.addmm(bias, x, weight, out=buffer)
    for block in row_blocks(rows, row_bytes, PRODUCT_BYTES):
        if keep:
            a = buffer[block]
        else:
            a = torch.addmm(bias, x[block], weight, out=buffer[: block.stop - block.start])
        if plan.indices is None:
            values[block], indices[block] = select_in_banks(a, plan.k, plan.banks(d_sae))
        else:
            values[block] = a.gather(1, indices[block]).relu_()
    if keep:
        return values, indices, buffer
    workspace.give(buffer)
    return values, indices, None


def product_and_select_above(
    centred: Tensor, encoder: Encoder, plan: EncodePlan
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Values, indices and candidates [B, W], and all pre-activations if a regularizer wants them.

    The candidates are those above the bound; see `reference.select_above`.
    """
    assert plan.above is not None
    dtype, (rows, d_sae) = plan.dtype, (len(centred), len(encoder.W))
    bound = reference.rounded_down(plan.above.clamp_min(0), dtype)
    if plan.regularizer is None and screening_pays(centred, encoder.W, dtype):
        return *pairs_above_screened(centred, encoder, bound).padded(rows), None
    x, weight, bias = centred.to(dtype), encoder.weight(dtype).t(), encoder.b.to(dtype)
    row_bytes = d_sae * dtype.itemsize
    keep = plan.regularizer is not None
    buffer = workspace.take((rows if keep else min(rows, max(1, PRODUCT_BYTES // row_bytes)),
                             d_sae), dtype)  # fmt: skip
    found = []
    for block in row_blocks(rows, row_bytes, PRODUCT_BYTES):
        out = buffer[block] if keep else buffer[: block.stop - block.start]
        found.append(pairs_above(torch.addmm(bias, x[block], weight, out=out), bound, block.start))
    padded = Pairs.joined(found, dtype).padded(rows)
    if keep:
        return *_with_empty_rows(padded, buffer), buffer
    workspace.give(buffer)
    return *padded, None


def _with_empty_rows(
    padded: tuple[Tensor, Tensor, Tensor], a: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Latent 0 as a candidate, not used, of rows that have none: Reg 1 leaves candidates out."""
    values, indices, candidates = padded
    empty = (~candidates[:, 0]).nonzero().squeeze(1)
    values[empty, 0] = a[empty, 0].relu()
    return values, indices, candidates


def evaluate_penalty(
    a: Tensor | None, indices: Tensor, mask: Tensor | None, plan: EncodePlan
) -> tuple[Tensor, Tensor | None]:
    """Value of the regularizer, and l1 and l2 of each row for Reg 2.

    Rectifies a and zeroes what is masked out, for Reg 1 what is selected, too.
    """
    wide = torch.promote_types(plan.dtype, torch.float32)
    if a is None:
        return torch.zeros((), dtype=wide), None
    # A mask of another dtype would leave the vectorised loop.
    weights = None if mask is None or bool(mask.all()) else mask.to(a.dtype)
    l1, l2 = torch.empty(len(a), dtype=wide), torch.empty(len(a), dtype=wide)
    for block in row_blocks(len(a), a.shape[1] * a.element_size(), PASS_BYTES):
        rows = a[block].relu_()
        if weights is not None:
            rows.mul_(weights)
        if plan.regularizer == "off_support_l1":
            rows.scatter_(1, indices[block], 0.0)
        torch.sum(rows, dim=1, dtype=wide, out=l1[block])
        if plan.regularizer == "l1_l2_ratio":
            l2[block] = torch.linalg.vector_norm(rows, dim=1, dtype=wide)
    scale = 1.0 / max(len(a), 1)
    if plan.regularizer == "off_support_l1":
        return l1.sum() * scale, None
    return reference.norm_ratio(l1, l2, plan.eps).sum() * scale, torch.stack([l1, l2])


def row_blocks(rows: int, row_bytes: int, block_bytes: int) -> Iterator[slice]:
    """Slices of rows of at most that many bytes, at least one row."""
    step = max(1, block_bytes // max(row_bytes, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
