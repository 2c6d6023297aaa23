"""Every selection rule as a loop over a dense matrix of activations, and the losses over it."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightsae.sae import (
    BankTopK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    L1L2Ratio,
    Matryoshka,
    MultiTopK,
    OffSupportL1,
    Reconstruction,
    Regularizer,
    Selection,
    SparseAutoencoder,
    TopK,
)

D_IN, D_SAE, K, ROWS = 6, 24, 3, 11
RULES: dict[str, Callable[[], Selection]] = {
    "TopK": lambda: TopK(K),
    "BatchTopK": lambda: BatchTopK(K),
    "GroupMax": lambda: GroupMax(K),
    "BankTopK": lambda: BankTopK(keep=2, bank=8),
    "JumpReLU": lambda: JumpReLU(K),
}
REGULARIZERS: dict[str, Regularizer | None] = {
    "none": None,
    "reg1": OffSupportL1(0.3),
    "reg1-unmasked": OffSupportL1(0.3, batch_active_only=False),
    "reg2": L1L2Ratio(0.2),
    "reg2-unmasked": L1L2Ratio(0.2, batch_active_only=False),
}
RECONSTRUCTIONS: dict[str, Reconstruction | None] = {
    "plain": None,
    "matryoshka-sum": Matryoshka([3, 10]),
    "matryoshka-mean": Matryoshka([0.25, 0.5], combine="mean"),
    "multi": MultiTopK(multiple=4),
}


def support_of(rule: Selection, a: Tensor) -> Tensor:
    """Selected latents of activations a [B, d_sae], bool."""
    support = torch.zeros_like(a, dtype=torch.bool)
    if isinstance(rule, BatchTopK):
        pairs = [(-float(v), i, j) for i, row in enumerate(a) for j, v in enumerate(row) if v > 0]
        for _, i, j in sorted(pairs)[: rule.k * len(a)]:
            support[i, j] = True
        return support
    if isinstance(rule, JumpReLU):
        return a > rule.threshold.detach().clamp_min(0).to(a)
    bank, keep = a.shape[1], rule.k
    if isinstance(rule, BankTopK):
        bank, keep = rule.bank, rule.keep
    if isinstance(rule, GroupMax):
        bank, keep = a.shape[1] // rule.k, 1
    for row, marks in zip(a, support, strict=True):
        for first in range(0, a.shape[1], bank):
            within = sorted(range(first, first + bank), key=lambda j: (-float(row[j]), j))
            marks[within[:keep]] = True
    return support


def activations(sae: SparseAutoencoder, leaves: dict[str, Tensor], x: Tensor) -> Tensor:
    subtracted = leaves["b_dec"] if sae.apply_b_dec_to_input else 0.0
    return torch.relu((x - subtracted) @ leaves["W_enc"].T + leaves["b_enc"])


def dense_parts(
    sae: SparseAutoencoder, leaves: dict[str, Tensor], x: Tensor, regularizer: str,
    reconstruction: str,
) -> dict[str, Tensor]:  # fmt: skip
    """Reconstruction and penalty from dense matrices; gradients of the leaves by autograd."""
    rule, a = sae.selection, activations(sae, leaves, x)
    support = support_of(rule, a.detach())
    z = a * support
    loss: Callable[[Tensor], Tensor] = lambda code: (  # noqa: E731
        (x - code @ leaves["W_dec"] - leaves["b_dec"]).pow(2).sum(dim=1).mean()
    )
    kind = RECONSTRUCTIONS[reconstruction]
    if kind is None:
        found = loss(z)
    elif isinstance(kind, Matryoshka):
        sizes = [3, 10, D_SAE] if kind.combine == "sum" else [6, 12, D_SAE]
        prefixes = [loss(z * (torch.arange(D_SAE) < size)) for size in sizes]
        found = torch.stack(prefixes).sum() / (1 if kind.combine == "sum" else len(sizes))
    else:
        found = loss(z) + loss(a * support_of(TopK(4 * rule.k), a.detach())) / 8
    return {"reconstruction": found, "penalty": dense_penalty(regularizer, a, support)}


def dense_penalty(regularizer: str, a: Tensor, support: Tensor) -> Tensor:
    # A place that a row fills with a zero counts as selected, as in the paper's Top-k.
    mu = torch.ones_like(support[0]) if "unmasked" in regularizer else support.any(dim=0)
    if regularizer.startswith("reg1"):
        return (a * ~support * mu).sum(dim=1).mean()
    if regularizer.startswith("reg2"):
        masked = a * mu
        rows = masked[(masked > 0).any(dim=1)]
        return (rows.sum(dim=1) / (rows.pow(2).sum(dim=1).sqrt() + 1e-8)).sum() / len(a)
    return a.sum() * 0
