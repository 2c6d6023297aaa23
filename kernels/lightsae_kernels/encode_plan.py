"""Options of one encoding (k, regularizer, dtypes, ...) in one frozen object."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightsae_kernels.types import EncodeOptions, FusedRegularizer, Group, Narrow


@dataclass(frozen=True, eq=False)
class EncodePlan:
    """The options of `lightsae_kernels.encode_topk`, and what was decided before the first kernel.

    Attributes:
        k: As in `encode_topk`; so are all others but two.
        dtype: Dtype of the product.
        keep: Keep the activations of the whole batch for a second use, [B, d_sae].
    """

    k: int
    dtype: torch.dtype
    regularizer: FusedRegularizer | None = None
    batch_active_only: bool = True
    eps: float = 1e-8
    indices: Tensor | None = None
    batch_active: Tensor | None = None
    process_group: Group = None
    bank: int | None = None
    above: Tensor | None = None
    narrow: Narrow | None = None
    keep: bool = False

    @property
    def options(self) -> EncodeOptions:
        """The keyword arguments of `encode_topk`."""
        return {
            "regularizer": self.regularizer,
            "batch_active_only": self.batch_active_only,
            "eps": self.eps,
            "indices": self.indices,
            "batch_active": self.batch_active,
            "process_group": self.process_group,
            "bank": self.bank,
            "above": self.above,
            "narrow": self.narrow,
        }

    def keeping(self, keep: bool) -> "EncodePlan":
        """The same plan with another `keep`."""
        return EncodePlan(self.k, self.dtype, **self.options, keep=keep)

    def banks(self, d_sae: int) -> int:
        """Parts of the dictionary that are selected from independently, of equal size."""
        return 1 if self.bank is None else d_sae // self.bank

    def used(
        self, values: Tensor, indices: Tensor, candidates: Tensor | None = None
    ) -> Tensor | None:
        """Which candidates are selected, [B, k] bool; None is all of them."""
        if self.narrow is None:
            return candidates
        found = self.narrow(values, indices)
        return found if candidates is None else found & candidates

    def mask(self, active: Tensor) -> Tensor | None:
        """Latents that the regularizer counts, [d_sae] bool; None is all of them."""
        return active if self.batch_active_only else None


def decode_dtype(W_dec: Tensor) -> torch.dtype:
    """Dtype that rows of W_dec are multiplied in: autocast's where that is narrower."""
    dtype = product_dtype(W_dec)
    return dtype if dtype.itemsize < W_dec.dtype.itemsize else W_dec.dtype


def product_dtype(x: Tensor) -> torch.dtype:
    """Dtype of the encoder product: autocast's where it is on, otherwise that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
