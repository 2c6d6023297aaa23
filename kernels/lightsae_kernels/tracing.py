"""What functional.py calls while torch.compile or torch.export looks: one custom operator each.

Eager calls go to their backend directly. The definition, where it was chosen, is traced as written.
"""

from types import ModuleType

import torch
from torch import Tensor

from lightsae_kernels import cpu, operators, reference
from lightsae_kernels.dtypes import product_dtype
from lightsae_kernels.types import Encoded, FusedRegularizer, Group, Residual, Task


def encode_topk(
    chosen: ModuleType, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int, *,
    regularizer: FusedRegularizer | None, batch_active_only: bool, eps: float,
    indices: Tensor | None, batch_active: Tensor | None, process_group: Group,
) -> Encoded:  # fmt: skip
    """See `lightsae_kernels.encode_topk`."""
    if chosen is reference:
        return reference.encode_topk(
            x, W_enc, b_enc, b_dec, k, regularizer=regularizer, eps=eps, indices=indices,
            batch_active_only=batch_active_only, batch_active=batch_active,
            process_group=process_group,
        )  # fmt: skip
    dtype, fused, keep = product_dtype(x), chosen is not cpu, False
    if fused:
        needed = torch.is_grad_enabled() and any(t.requires_grad for t in (x, W_enc, b_enc, b_dec))
        keep = operators.implementation(fused).keeps(
            Task(k, regularizer, batch_active_only, eps, None, None, None, dtype, needed)
        )
    values, selected, penalty, active, *_ = operators.encode_topk(
        x, W_enc, b_enc, b_dec, k, regularizer, batch_active_only, eps, indices, batch_active,
        None if process_group is None else process_group.group_name, dtype, fused, keep,
    )  # fmt: skip
    return Encoded(
        values,
        selected if indices is None else indices,
        penalty,
        active if batch_active is None else batch_active,
    )


def sparse_decode(
    chosen: ModuleType, values: Tensor, indices: Tensor, W_dec: Tensor, b_dec: Tensor | None
) -> Tensor:
    """See `lightsae_kernels.sparse_decode`."""
    if chosen is reference:
        return reference.sparse_decode(values, indices, W_dec, b_dec)
    x_hat: Tensor = operators.sparse_decode(values, indices, W_dec, b_dec, chosen is not cpu)
    return x_hat


def sparse_residual(
    chosen: ModuleType, x: Tensor, values: Tensor, indices: Tensor, W_dec: Tensor,
    b_dec: Tensor | None,
) -> Residual:  # fmt: skip
    """See `lightsae_kernels.sparse_residual`."""
    if chosen is reference:
        return reference.sparse_residual(x, values, indices, W_dec, b_dec)
    fused = chosen is not cpu
    return Residual(*operators.sparse_residual(x, values, indices, W_dec, b_dec, fused))
