"""Selection rules and nested losses by the names that tables call them."""

from collections.abc import Callable
from typing import NamedTuple

from lightsae.sae import (
    BankTopK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    Matryoshka,
    MultiTopK,
    Reconstruction,
    Selection,
    TopK,
)


class Rule(NamedTuple):
    """Which latents stay, and what loss they are trained with.

    Attributes:
        selection: The rule for a k and a d_sae.
        reconstruction: A loss of nested parts in place of ||x - x_hat||^2.
    """

    selection: Callable[[int, int], Selection]
    reconstruction: Reconstruction | None = None


def _top_k(k: int, d_sae: int) -> Selection:
    return TopK(k)


def _batch_top_k(k: int, d_sae: int) -> Selection:
    return BatchTopK(k)


_NESTED = Matryoshka([1 / 8, 1 / 4, 1 / 2, 1])
RULES = {
    "TopK": Rule(_top_k),
    "BatchTopK": Rule(_batch_top_k),
    "JumpReLU": Rule(lambda k, d_sae: JumpReLU(k)),
    "BankTopK": Rule(lambda k, d_sae: BankTopK(keep=2, bank=2 * d_sae // k)),
    "GroupMax": Rule(lambda k, d_sae: GroupMax(k)),
    "Matryoshka TopK": Rule(_top_k, _NESTED),
    "Matryoshka BatchTopK": Rule(_batch_top_k, _NESTED),
    "MultiTopK": Rule(_top_k, MultiTopK()),
}
