"""Selection rules: which latents of a row stay active."""

from lightsae.sae.selection.bank_topk import BankTopK, GroupMax
from lightsae.sae.selection.batch_topk import BatchTopK
from lightsae.sae.selection.fused_selection import (
    Batch,
    FusedSelection,
    Selection,
    fused_options,
    inference_rule,
    learned_figures,
)
from lightsae.sae.selection.jumprelu import JumpReLU
from lightsae.sae.selection.threshold import Threshold
from lightsae.sae.selection.topk import TopK

# Rules that files can name.
SELECTIONS: dict[str, type[Selection]] = {
    "TopK": TopK,
    "BatchTopK": BatchTopK,
    "JumpReLU": JumpReLU,
    "BankTopK": BankTopK,
    "GroupMax": GroupMax,
}

__all__ = [
    "SELECTIONS",
    "BankTopK",
    "Batch",
    "BatchTopK",
    "FusedSelection",
    "GroupMax",
    "JumpReLU",
    "Selection",
    "Threshold",
    "TopK",
    "fused_options",
    "inference_rule",
    "learned_figures",
]
