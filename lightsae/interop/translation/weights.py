"""Weights of other formats, put into an autoencoder of ours."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from lightsae.sae import Normalization, Selection, SparseAutoencoder

Made = TypeVar("Made", bound=SparseAutoencoder)


class Weights(NamedTuple):
    """What every sparse autoencoder has, laid out as `SparseAutoencoder` has it.

    Attributes:
        W_enc: [d_sae, d_in].
        b_enc: [d_sae].
        W_dec: [d_sae, d_in]; [d_sae, d_out] of a transcoder.
        b_dec: [d_in]; [d_out] of a transcoder.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor


def with_unit_rows(weights: Weights) -> Weights:
    """Pre-activations times the norms of the decoder's rows, which become 1.

    A row of zeros stays as it is.

    Example:
        >>> rows = torch.tensor([[3.0, 4.0]])
        >>> with_unit_rows(Weights(rows, torch.ones(1), rows, torch.zeros(2))).b_enc
        tensor([5.])
    """
    weights = widened(weights)
    norms = torch.linalg.vector_norm(weights.W_dec, dim=1)
    norms = norms.where(norms > 0, 1)
    W_enc, b_enc, W_dec, b_dec = weights
    return Weights(W_enc * norms[:, None], b_enc * norms, W_dec / norms[:, None], b_dec)


def widened(weights: Weights) -> Weights:
    """Weights in float32 at least, which folding would otherwise round to a half precision again.

    Example:
        >>> rows = torch.eye(2, dtype=torch.bfloat16)
        >>> widened(Weights(rows, rows[0], rows, rows[0])).W_enc.dtype
        torch.float32
    """
    return Weights(*(t.to(torch.promote_types(t.dtype, torch.float32)) for t in weights))


def autoencoder(
    weights: Weights,
    selection: Selection,
    *,
    provenance: dict[str, Any],
    normalization: Normalization = "none",
    apply_b_dec_to_input: bool = True,
    threshold: Tensor | None = None,
) -> SparseAutoencoder:
    """An autoencoder of given weights, in the dtype that holds all of them.

    Args:
        weights: The weights; they are copied.
        selection: The rule.
        provenance: Where it comes from; see `provenance.origin`.
        normalization: What is done to inputs.
        apply_b_dec_to_input: Whether b_dec is subtracted from inputs.
        threshold: Of rules that have one: a scalar of BatchTopK, [d_sae] of JumpReLU.

    Raises:
        LightsaeError: If sizes and rule do not fit together.

    Example:
        >>> from lightsae.sae import TopK
        >>> rows = torch.eye(3)
        >>> weights = Weights(rows, torch.zeros(3), rows, torch.zeros(3))
        >>> sae = autoencoder(weights, TopK(1), provenance={})
        >>> sae(torch.tensor([[2.0, 5.0, 3.0]]))
        tensor([[0., 5., 0.]], grad_fn=<...>)
    """
    d_sae, d_in = weights.W_enc.shape
    with torch.device("meta"):  # no memory, no random numbers
        sae = SparseAutoencoder(
            d_in, d_sae, selection, normalization, apply_b_dec_to_input=apply_b_dec_to_input
        )
    return filled(sae, weights._asdict(), selection, threshold, provenance)


def filled(
    sae: Made,
    tensors: Mapping[str, Tensor],
    selection: Selection,
    threshold: Tensor | None,
    provenance: dict[str, Any],
) -> Made:
    """Give an autoencoder that was built on meta its tensors, in the dtype that holds all of them.

    Its scales become 1.

    Args:
        sae: The autoencoder.
        tensors: By name; they are copied.
        selection: The rule that it was built with.
        threshold: As in `autoencoder`.
        provenance: As in `autoencoder`.

    Example:
        >>> from lightsae.sae import TopK
        >>> with torch.device("meta"):
        ...     sae = SparseAutoencoder(3, 3, TopK(1))
        >>> rows = torch.eye(3)
        >>> weights = Weights(rows, torch.zeros(3), rows, torch.zeros(3))
        >>> filled(sae, weights._asdict(), TopK(1), None, {}).W_enc.device
        device(type='cpu')
    """
    dtype = next(iter(tensors.values())).dtype
    for tensor in tensors.values():
        dtype = torch.promote_types(dtype, tensor.dtype)
    state = _tensors_of_rule(selection, sae.d_sae)
    state |= {name: _copied(tensor, dtype) for name, tensor in tensors.items()}
    scales = sae.state_dict().keys() & {"scale", "target_scale"}
    state |= {name: torch.ones((), dtype=dtype) for name in scales}
    if threshold is not None:
        state["selection.threshold"] = _copied(threshold, torch.float32)
    sae.load_state_dict(state, assign=True)
    sae.provenance = provenance
    return sae


def _tensors_of_rule(selection: Selection, d_sae: int) -> dict[str, Tensor]:
    """What a rule has for a dictionary before it is trained, by its names in an autoencoder."""
    rule = copy.deepcopy(selection)
    if hasattr(rule, "build"):
        rule.build(d_sae)
    state = rule.state_dict() if isinstance(rule, nn.Module) else {}
    return {f"selection.{name}": tensor for name, tensor in state.items()}


def _copied(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Memory of its own: that of the file may change, or be mapped."""
    return tensor.detach().to(dtype, copy=True).contiguous()
