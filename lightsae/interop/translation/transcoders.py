"""Transcoders of other formats in and out."""

from typing import Any

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.translation.folding import require_no_row_statistics, weights_of
from lightsae.interop.translation.weights import Weights, filled, widened
from lightsae.sae import Normalization, Selection, Transcoder


def transcoder(
    weights: Weights,
    selection: Selection,
    *,
    provenance: dict[str, Any],
    W_skip: Tensor | None = None,
    b_in: Tensor | None = None,
    scales: tuple[float, float] = (1.0, 1.0),
    threshold: Tensor | None = None,
) -> Transcoder:
    """A transcoder of given weights, in the dtype that holds all of them.

    Args:
        weights: W_dec is [d_sae, d_out] and b_dec [d_out]; they are copied.
        selection: The rule.
        provenance: Where it comes from; see `provenance.origin`.
        W_skip: The linear map of the inputs, [d_out, d_in].
        b_in: What is subtracted from inputs, [d_in].
        scales: What inputs and what targets are divided by.
        threshold: Of rules that have one; see `weights.autoencoder`.

    Raises:
        LightsaeError: If sizes and rule do not fit together.

    Example:
        >>> from lightsae.sae import TopK
        >>> weights = Weights(torch.eye(3), torch.zeros(3), torch.ones(3, 2), torch.zeros(2))
        >>> transcoder(weights, TopK(1), provenance={})(torch.tensor([[2.0, 5.0, 3.0]]))
        tensor([[5., 5.]], grad_fn=<...>)
    """
    d_sae, d_in = weights.W_enc.shape
    d_out, skip = weights.W_dec.shape[1], W_skip is not None
    kind: Normalization = "none" if scales == (1, 1) else "centre_scale"
    with torch.device("meta"):  # no memory, no random numbers
        made = Transcoder(d_in, d_sae, selection, kind, d_out=d_out, skip=skip)
    tensors = weights._asdict()
    tensors["b_in"] = weights.W_enc.new_zeros(d_in) if b_in is None else b_in
    if W_skip is not None:
        tensors["W_skip"] = W_skip
    filled(made, tensors, selection, threshold, provenance)
    made.scale.fill_(scales[0])
    made.target_scale.fill_(scales[1])
    return made


def without_centre(made: Transcoder) -> tuple[Weights, Tensor | None]:
    """Weights, and W_skip, with which the same codes come from inputs of which nothing is taken.

        a = select(W_enc x / s + b_enc'),  y_hat = t (a W_dec + b_dec' + W_skip x / s)

    with b_enc' = b_enc - W_enc b_in and b_dec' = b_dec - W_skip b_in, summed in float64.

    Example:
        >>> from lightsae.sae import TopK
        >>> made = Transcoder(2, 4, TopK(1))
        >>> _ = made.b_in.fill_(1.0)
        >>> torch.equal(without_centre(made)[0].b_enc, -made.W_enc.detach().sum(dim=1))
        True
    """
    weights = widened(weights_of(made)) if made.b_in.any() else weights_of(made)
    W_skip = None if made.W_skip is None else made.W_skip.detach()
    b_dec = weights.b_dec if W_skip is None else less(weights.b_dec, W_skip, made.b_in)
    b_enc = less(weights.b_enc, weights.W_enc, made.b_in)
    return weights._replace(b_enc=b_enc, b_dec=b_dec), W_skip


def less(bias: Tensor, matrix: Tensor, x: Tensor) -> Tensor:
    """A bias less matrix x, summed in float64, in the dtype of the bias.

    Example:
        >>> less(torch.ones(2), torch.eye(2), torch.tensor([1.0, 2.0]))
        tensor([ 0., -1.])
    """
    return (bias.double() - matrix.double() @ x.double()).to(bias.dtype)


def folded_transcoder(made: Transcoder) -> Transcoder:
    """The same function, codes included, with scales of 1 and a b_in of 0.

    Raises:
        LightsaeError: If each row is normalised by statistics of its own.

    Example:
        >>> from lightsae.sae import TopK
        >>> made, x = Transcoder(3, 6, TopK(2), skip=True), torch.randn(5, 3)
        >>> _ = made.b_in.fill_(0.5), made.scale.fill_(2.0), made.target_scale.fill_(3.0)
        >>> torch.allclose(folded_transcoder(made)(x), made(x), atol=1e-5)
        True
    """
    require_no_row_statistics(made, "folded")
    weights, W_skip = without_centre(made)
    scale, target_scale = made.scale.double(), made.target_scale.double()
    if scale != 1 or target_scale != 1:
        weights = widened(weights)
        W_skip = None if W_skip is None else W_skip.to(weights.W_enc.dtype)
    W_enc, b_enc, W_dec, b_dec = weights
    return transcoder(
        Weights(W_enc / scale, b_enc, W_dec * target_scale, b_dec * target_scale),
        made.selection,
        W_skip=None if W_skip is None else W_skip * (target_scale / scale),
        threshold=getattr(made.selection, "threshold", None),
        provenance=dict(made.provenance),
    )


def require_place(made: Transcoder, format_name: str, *, skip: bool = True) -> None:
    """Refuse a transcoder that a format of one width has no place for.

    Args:
        made: The transcoder.
        format_name: `NAME` of the format.
        skip: Whether it has a place for W_skip.

    Raises:
        LightsaeError: If d_out is not d_in, or there is a skip that has no place.

    Example:
        >>> require_place(Transcoder(4, 32, d_out=3), "sparsify")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: sparsify has transcoders of one width, not d_in = 4 and \
d_out = 3
    """
    if made.W_skip is not None and not skip:
        raise LightsaeError(f"{format_name} has no place for the skip of a transcoder")
    if made.d_out != made.d_in:
        raise LightsaeError(
            f"{format_name} has transcoders of one width, not d_in = {made.d_in} and "
            f"d_out = {made.d_out}"
        )
