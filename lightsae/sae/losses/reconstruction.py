"""How a code is held against its inputs: as a whole, or in nested parts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from lightsae_kernels import Encoded, PairOrder, nested_residual, reference, sparse_residual
from torch import Tensor
from torch.distributed import ProcessGroup

from lightsae.errors import LightsaeError
from lightsae.sae.autoencoder import SparseAutoencoder
from lightsae.sae.regularizers import Regularizer
from lightsae.sae.selection import TopK


class Reconstructed(NamedTuple):
    """The code of a batch and what it leaves unexplained.

    Attributes:
        encoded: The code that counts: for metrics, dead latents and the regularizer.
        residual: target - x_hat by that code, at least float32, [B, d_out].
        loss: The reconstruction loss, a mean over samples.
    """

    encoded: Encoded
    residual: Tensor
    loss: Tensor


class Reconstruction(ABC):
    """A reconstruction loss other than mean_i ||x_i - x_hat_i||^2."""

    @abstractmethod
    def __call__(
        self,
        sae: SparseAutoencoder,
        x: Tensor,
        target: Tensor,
        *,
        regularizer: Regularizer | None = None,
        process_group: ProcessGroup | None = None,
    ) -> Reconstructed:
        """Encode, decode and compare.

        Args:
            sae: The autoencoder.
            x: Normalised inputs, [B, d_in].
            target: What the code is to reconstruct, [B, d_out]: x, or of a transcoder the
                normalised targets less what its skip explains.
            regularizer: Penalty on the activations before selection.
            process_group: Ranks that share the batch.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Arguments that build the same loss again, as JSON."""


class Matryoshka(Reconstruction):
    """Prefixes of the dictionary, each of which has to reconstruct alone (arXiv 2503.17547).

    One selection over the whole dictionary; prefix p reconstructs by those of the selected latents
    that are among its first m_p. The loss is the sum, or the mean, of the prefixes' losses. On the
    CPU every selected latent is decoded once, whatever the number of prefixes; on a GPU each prefix
    costs a decode.

    Args:
        prefixes: Sizes, ascending: latents, or shares of d_sae if below 1. The whole dictionary is
            always the last, and need not be named.
        combine: "sum", as SAELens has it, or "mean", as dictionary_learning has it.

    Raises:
        LightsaeError: If there is none, they do not ascend or combine is neither.

    Example:
        >>> Matryoshka([0.25, 0.5]).sizes(d_sae=64)
        [16, 32, 64]
    """

    def __init__(self, prefixes: Sequence[float], combine: Literal["sum", "mean"] = "sum") -> None:
        if combine not in ("sum", "mean"):
            raise LightsaeError(f"combine is {combine!r}, expected 'sum' or 'mean'")
        listed = isinstance(prefixes, Sequence) and not isinstance(prefixes, str)
        if not listed or not prefixes or not all(_is_size(each) for each in prefixes):
            raise LightsaeError(
                f"prefixes are {prefixes!r}, expected numbers of latents or shares up to 1"
            )
        self.prefixes, self.combine = list(prefixes), combine

    def settings(self) -> dict[str, Any]:
        """Arguments that build the same loss again."""
        return {"prefixes": self.prefixes, "combine": self.combine}

    def sizes(self, d_sae: int) -> list[int]:
        """Latents of each prefix, ending with all.

        Raises:
            LightsaeError: If they do not ascend within the dictionary.
        """
        shares = all(each <= 1 for each in self.prefixes)
        found = [round(each * d_sae) if shares else int(each) for each in self.prefixes]
        found += [] if found[-1] == d_sae else [d_sae]
        if found[0] < 1 or any(a >= b for a, b in pairwise(found)):
            raise LightsaeError(
                f"prefixes {self.prefixes} are {found} of d_sae = {d_sae} latents, "
                "expected ascending sizes of at least 1"
            )
        return found

    def __call__(
        self,
        sae: SparseAutoencoder,
        x: Tensor,
        target: Tensor,
        *,
        regularizer: Regularizer | None = None,
        process_group: ProcessGroup | None = None,
    ) -> Reconstructed:
        """See `Reconstruction`."""
        sizes, order = self.sizes(sae.d_sae), PairOrder()
        encoded = sae.encode_scaled(
            x, regularizer=regularizer, process_group=process_group, order=order
        )
        # Compared with numbers: a tensor of them would have to be copied to a GPU.
        levels = torch.zeros_like(encoded.indices)
        for size in sizes[:-1]:
            levels += encoded.indices >= size
        left = nested_residual(
            target, encoded.values, encoded.indices, levels, len(sizes), sae.W_dec, sae.b_dec,
            used=encoded.used, W_dec_narrow=sae.narrow("W_dec"), order=order,
        )  # fmt: skip
        total = left.errors.sum() / max(len(x), 1)
        return Reconstructed(
            encoded, left.residual, total / len(sizes) if self.combine == "mean" else total
        )


def _is_size(given: object) -> bool:
    """Whether it is a number of latents, or a share."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return False
    return given > 0 and (given <= 1 or float(given).is_integer())


class MultiTopK(Reconstruction):
    """Top-k at k and, at a smaller weight, at a multiple of it (arXiv 2406.04093).

    L(k) + weight L(multiple k), so that codes with more latents than trained with get better
    instead of worse. Metrics, dead latents and the regularizer go by the k largest. With a
    regularizer the encoder product is made twice.

    Args:
        multiple: 4 in the paper.
        weight: Of the larger code, 1/8 in the paper.

    Raises:
        LightsaeError: If multiple is not an integer above 1 or weight not positive.
    """

    def __init__(self, multiple: int = 4, weight: float = 0.125) -> None:
        if type(multiple) is not int or multiple < 2:
            raise LightsaeError(f"multiple must be an integer above 1, got {multiple!r}")
        if not 0 < weight < float("inf"):
            raise LightsaeError(f"weight must be positive and finite, got {weight}")
        self.multiple, self.weight = multiple, weight

    def settings(self) -> dict[str, Any]:
        """Arguments that build the same loss again."""
        return {"multiple": self.multiple, "weight": self.weight}

    def __call__(
        self,
        sae: SparseAutoencoder,
        x: Tensor,
        target: Tensor,
        *,
        regularizer: Regularizer | None = None,
        process_group: ProcessGroup | None = None,
    ) -> Reconstructed:
        """See `Reconstruction`.

        Raises:
            LightsaeError: If the selection rule is not `TopK`.
        """
        if type(sae.selection) is not TopK:
            rule = type(sae.selection).__name__
            raise LightsaeError(f"MultiTopK goes with selection TopK, got {rule}")
        k, order = sae.selection.k, PairOrder()
        more = min(self.multiple * k, sae.d_sae)
        wide = sae.encode_scaled(x, k=more, process_group=process_group, order=order)
        encoded = sae.encode_scaled(
            x, regularizer=regularizer, process_group=process_group
        ) if regularizer is not None else _leading(wide, k, process_group)  # fmt: skip
        levels = (torch.arange(more, device=x.device) >= k).long().expand_as(wide.indices)
        left = nested_residual(
            target, wide.values, wide.indices, levels, 2, sae.W_dec, sae.b_dec,
            W_dec_narrow=sae.narrow("W_dec"), order=order,
        )  # fmt: skip
        of_k, of_more = left.errors.sum(dim=1) / max(len(x), 1)
        with torch.no_grad():
            of_code = sparse_residual(
                target, encoded.values, encoded.indices, sae.W_dec, sae.b_dec,
                W_dec_narrow=sae.narrow("W_dec"),
            )  # fmt: skip
        return Reconstructed(encoded, of_code.residual, of_k + self.weight * of_more)


def _leading(wide: Encoded, k: int, process_group: ProcessGroup | None) -> Encoded:
    """The code with the k largest, of one with more."""
    indices = wide.indices[:, :k]
    active = reference.batch_active_mask(indices, len(wide.batch_active), process_group)
    return wide._replace(values=wide.values[:, :k], indices=indices, batch_active=active)


# Losses that files can name.
RECONSTRUCTIONS: dict[str, type[Reconstruction]] = {
    "Matryoshka": Matryoshka,
    "MultiTopK": MultiTopK,
}
