"""What an autoencoder asks of a selection rule, and the rules that the fused operations run."""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from lightsae_kernels import Encoded, EncodeOptions, encode_topk, reference
from torch import Tensor
from torch.distributed import ProcessGroup

from lightsae.errors import LightsaeError
from lightsae.sae.regularizers import L1L2Ratio, Regularizer

Found = TypeVar("Found")
# What is called with k and options of `encode_topk`, and returns a code or more than that.
Operation = Callable[..., Found]


class Batch(NamedTuple):
    """What an operation encodes.

    Attributes:
        x: Inputs, [B, d_in].
        encoder: W_enc [d_sae, d_in], b_enc [d_sae] and b_dec [d_in].
    """

    x: Tensor
    encoder: tuple[Tensor, Tensor, Tensor]

    @property
    def d_sae(self) -> int:
        """Size of the dictionary."""
        return len(self.encoder[0])


@runtime_checkable
class Selection(Protocol):
    """What an autoencoder asks of a selection rule; `settings` goes into the saved file.

    A rule with tensors of its own is an `nn.Module`; an autoencoder takes a copy of it, and calls
    its `build(d_sae)` if it has one. Where a rule is applied to new inputs in another way than in
    training, its `inference` returns the rule that does; figures of what it learns, which training
    logs, are those of its `learned`, by name. A subclass that was imported can be named
    in a configuration without its package.
    """

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


class FusedSelection(Selection):
    """A rule in terms of the options of `lightsae_kernels.encode_topk`, on every fast path.

    A subclass writes `run`, and `settings` if k is not its only one.

    Args:
        k: Latents kept per row, or per row on average.

    Raises:
        LightsaeError: If k is not an integer or smaller than 1.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = positive("k", k)

    def settings(self) -> dict[str, Any]:
        """Arguments that build the same rule again."""
        return {"k": self.k}

    @abstractmethod
    def run(self, operation: Operation[Found], batch: Batch, options: EncodeOptions) -> Found:
        """Call the operation as `operation(k, **options)`, with options of the rule added.

        Args:
            operation: `encode_topk` or `encode_residual` of a batch.
            batch: What is encoded.
            options: Those of the regularizer.
        """

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
            k: Keep the k largest activations of each row instead, whatever the rule.
            regularizer: Fused if it names a fused operation, dense otherwise.
            process_group: Ranks over which the batch-active mask is the union.

        Returns:
            `lightsae_kernels.Encoded`.
        """
        operation = partial(encode_topk, x, *encoder)
        options = fused_options(regularizer, process_group)
        if options is None:
            options = {"process_group": process_group}
        if k is None:
            encoded = self.run(operation, Batch(x, encoder), options)
        else:
            encoded = operation(k, **options)
        if regularizer is None or "regularizer" in options:
            return encoded
        return with_dense_penalty(encoded, x, encoder, regularizer)


def fused_options(
    regularizer: Regularizer | None, process_group: ProcessGroup | None
) -> EncodeOptions | None:
    """Options of the fused operations for a regularizer, or None where it is none of theirs."""
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


def inference_rule(selection: Selection) -> Selection:
    """The rule as it is applied to new inputs.

    Example:
        >>> from lightsae.sae import TopK
        >>> rule = TopK(2)
        >>> inference_rule(rule) is rule
        True
    """
    found: Callable[[], Selection] | None = getattr(selection, "inference", None)
    return selection if found is None else found()


def learned_figures(selection: Selection) -> dict[str, Tensor]:
    """What a rule has learned, in scalars by name.

    Example:
        >>> from lightsae.sae import BatchTopK
        >>> learned_figures(BatchTopK(2))
        {'threshold': tensor(-1.)}
    """
    found: Callable[[], dict[str, Tensor]] | None = getattr(selection, "learned", None)
    return {} if found is None else found()


def with_dense_penalty(
    encoded: Encoded, x: Tensor, encoder: tuple[Tensor, Tensor, Tensor], regularizer: Regularizer
) -> Encoded:
    """A code with the penalty of its batch, evaluated on all [B, d_sae] activations."""
    a = reference.activations(x, *encoder)
    mask = encoded.batch_active
    if not regularizer.batch_active_only:
        mask = torch.ones_like(mask)
    indices = encoded.indices
    if encoded.used is not None:
        indices = _used_alone(a.detach(), indices, encoded.used)
    return encoded._replace(penalty=regularizer.penalty(a, indices, mask))


def _used_alone(a: Tensor, indices: Tensor, used: Tensor) -> Tensor:
    """Indices with another used one of their row in unused places.

    A row that uses none has its smallest activation there, which is 0 wherever a latent is off.
    """
    any_used = used.any(dim=1, keepdim=True)
    first = indices.gather(1, used.to(torch.uint8).argmax(dim=1, keepdim=True))
    instead = torch.where(any_used, first, a.argmin(dim=1, keepdim=True))
    return torch.where(used, indices, instead)


def positive(name: str, given: int) -> int:
    """An integer of at least 1.

    Raises:
        LightsaeError: If it is none.
    """
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise LightsaeError(f"{name} must be an integer of at least 1, got {given!r}")
    return given
