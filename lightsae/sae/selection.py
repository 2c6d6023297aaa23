"""Selection rules: which latents of a row stay active."""

from typing import Any, Protocol, runtime_checkable

import torch
from lightsae_kernels import Encoded, EncodeOptions, encode_topk, reference
from torch import Tensor
from torch.distributed import ProcessGroup

from lightsae.errors import LightsaeError
from lightsae.sae.regularizers import L1L2Ratio, Regularizer


@runtime_checkable
class Selection(Protocol):
    """What an autoencoder asks of a selection rule; `settings` goes into the saved file."""

    k: int

    def encode(
        self,
        x: Tensor,
        encoder: tuple[Tensor, Tensor, Tensor],
        *,
        k: int | None = None,
        regularizer: Regularizer | None = None,
        process_group: ProcessGroup | None = None,
    ) -> Encoded:
        """Encode x [B, d_in] with (W_enc, b_enc, b_dec)."""
        ...

    def settings(self) -> dict[str, Any]:
        """Arguments that build the same rule again, as JSON."""
        ...


class TopK:
    """Keep the k largest activations of every row, ties to the lowest index.

    Args:
        k: Latents kept per row.

    Raises:
        LightsaeError: If k is not an integer or smaller than 1.

    Example:
        >>> import torch
        >>> encoder = torch.eye(3), torch.zeros(3), torch.zeros(3)
        >>> TopK(2).encode(torch.tensor([[1.0, 5.0, 3.0]]), encoder).indices
        tensor([[1, 2]])
    """

    def __init__(self, k: int) -> None:
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise LightsaeError(f"k must be an integer of at least 1, got {k!r}")
        self.k = k

    def settings(self) -> dict[str, Any]:
        """Arguments that build the same rule again."""
        return {"k": self.k}

    def encode(
        self,
        x: Tensor,
        encoder: tuple[Tensor, Tensor, Tensor],
        *,
        k: int | None = None,
        regularizer: Regularizer | None = None,
        process_group: ProcessGroup | None = None,
    ) -> Encoded:
        """Encode a batch and evaluate a regularizer on its activations.

        Args:
            x: Inputs, [B, d_in].
            encoder: W_enc [d_sae, d_in], b_enc [d_sae] and b_dec [d_in].
            k: Another k than the rule's own.
            regularizer: Fused if it names a fused operation, dense otherwise.
            process_group: Ranks over which the batch-active mask is the union.

        Returns:
            `lightsae_kernels.Encoded`.
        """
        kept = self.k if k is None else k
        options = _options(regularizer, process_group)
        if options is None:
            assert regularizer is not None
            return _encode_dense(x, encoder, kept, regularizer, process_group)
        return encode_topk(x, *encoder, kept, **options)


# Rules that files can name.
SELECTIONS: dict[str, type[TopK]] = {"TopK": TopK}


def fused_options(
    selection: Selection, regularizer: Regularizer | None, process_group: ProcessGroup | None
) -> EncodeOptions | None:
    """Arguments of the fused operations, or None where rule or regularizer are not theirs."""
    return _options(regularizer, process_group) if type(selection) is TopK else None


def _options(
    regularizer: Regularizer | None, process_group: ProcessGroup | None
) -> EncodeOptions | None:
    options: EncodeOptions = {"process_group": process_group}
    if regularizer is None:
        return options
    if regularizer.fused is None:
        return None
    options["regularizer"] = regularizer.fused
    options["batch_active_only"] = regularizer.batch_active_only
    if isinstance(regularizer, L1L2Ratio):
        options["eps"] = regularizer.eps
    return options


def _encode_dense(
    x: Tensor,
    encoder: tuple[Tensor, Tensor, Tensor],
    k: int,
    regularizer: Regularizer,
    process_group: ProcessGroup | None,
) -> Encoded:
    encoded = encode_topk(x, *encoder, k, process_group=process_group)
    a = reference.activations(x, *encoder)
    mask = encoded.batch_active
    if not regularizer.batch_active_only:
        mask = torch.ones_like(mask)
    return encoded._replace(penalty=regularizer.penalty(a, encoded.indices, mask))
