"""An autoencoder without its input scale and without subtracting b_dec: what every format holds.

What is of half precision comes out in float32: it would be rounded once more.
"""

import torch

from lightsae.errors import LightsaeError
from lightsae.interop.translation.weights import Weights, autoencoder, widened
from lightsae.sae import SparseAutoencoder
from lightsae.sae.normalization import ROW_WISE


def weights_of(sae: SparseAutoencoder) -> Weights:
    """The four weights as they are, without their gradients."""
    return Weights(*(getattr(sae, name).detach() for name in Weights._fields))


def without_scale(sae: SparseAutoencoder) -> Weights:
    """Weights with which the same codes come from inputs that are not divided by `scale`.

        a = select(W_enc / s (x - s b_dec) + b_enc),  x_hat = a (s W_dec) + s b_dec

    Args:
        sae: Normalised by one scale or by none.

    Returns:
        The weights; whether b_dec is subtracted stays as it is.

    Raises:
        LightsaeError: If each row is normalised by statistics of its own.

    Example:
        >>> from lightsae.sae import TopK
        >>> sae = SparseAutoencoder(2, 4, TopK(1))
        >>> _ = sae.scale.fill_(2.0)
        >>> torch.equal(without_scale(sae).W_dec, 2 * sae.W_dec)
        True
    """
    require_no_row_statistics(sae, "folded")
    weights, scale = weights_of(sae), sae.scale
    if scale == 1:
        return weights
    weights, scale = widened(weights), scale.to(torch.promote_types(scale.dtype, torch.float32))
    return Weights(
        weights.W_enc / scale, weights.b_enc, weights.W_dec * scale, weights.b_dec * scale
    )


def folded(sae: SparseAutoencoder) -> Weights:
    """Weights with which the same codes come from inputs as they are.

        a = select(W_enc' x + b_enc'),  x_hat = a W_dec' + b_dec'

    with b_enc' = b_enc - W_enc b_dec: exact but for rounding.

    Raises:
        LightsaeError: If each row is normalised by statistics of its own.

    Example:
        >>> from lightsae.sae import TopK
        >>> sae, x = SparseAutoencoder(3, 6, TopK(2), "none"), torch.randn(5, 3)
        >>> _ = sae.b_dec.data.fill_(0.5)
        >>> W_enc, b_enc, _, _ = folded(sae)
        >>> torch.allclose(x @ W_enc.mT + b_enc, sae.pre_activations(x), atol=1e-5)
        True
    """
    weights = without_scale(sae)
    return shifted(weights, -1) if sae.apply_b_dec_to_input else weights


def folded_autoencoder(sae: SparseAutoencoder) -> SparseAutoencoder:
    """The same function with the weights of `folded`: no scale, nothing subtracted.

    Raises:
        LightsaeError: If each row is normalised by statistics of its own.

    Example:
        >>> from lightsae.sae import TopK
        >>> folded_autoencoder(SparseAutoencoder(3, 6, TopK(2))).apply_b_dec_to_input
        False
    """
    return autoencoder(
        folded(sae),
        sae.selection,
        provenance=dict(sae.provenance),
        apply_b_dec_to_input=False,
        threshold=getattr(sae.selection, "threshold", None),
    )


def subtracting(sae: SparseAutoencoder, format_name: str) -> Weights:
    """Weights with which the same codes come from inputs less b_dec.

        a = select(W_enc' (x - b_dec') + b_enc'),  x_hat = a W_dec' + b_dec'

    Args:
        sae: Normalised by one scale or by none.
        format_name: Of the format, named in the error.

    Raises:
        LightsaeError: If each row is normalised by statistics of its own.

    Example:
        >>> from lightsae.sae import TopK
        >>> sae = SparseAutoencoder(3, 6, TopK(2), "none", apply_b_dec_to_input=False)
        >>> _ = sae.b_dec.data.fill_(0.5)
        >>> W_enc, b_enc, _, b_dec = subtracting(sae, "sparsify")
        >>> x = torch.randn(5, 3)
        >>> torch.allclose((x - b_dec) @ W_enc.mT + b_enc, sae.pre_activations(x), atol=1e-5)
        True
    """
    require_no_row_statistics(sae, f"written as {format_name}")
    weights = without_scale(sae)
    return weights if sae.apply_b_dec_to_input else shifted(weights, 1)


def shifted(weights: Weights, sign: int) -> Weights:
    """b_enc + sign W_enc b_dec in the place of b_enc, summed in float64.

    Example:
        >>> rows = torch.eye(2)
        >>> shifted(Weights(rows, torch.zeros(2), rows, torch.tensor([1.0, 2.0])), -1).b_enc
        tensor([-1., -2.])
    """
    if not weights.b_dec.any():
        return weights
    weights = widened(weights)
    shift = weights.W_enc.double() @ weights.b_dec.double()
    b_enc = (weights.b_enc.double() + sign * shift).to(weights.b_enc.dtype)
    return weights._replace(b_enc=b_enc)


def require_no_row_statistics(sae: SparseAutoencoder, how: str) -> None:
    """Refuse a normalisation by row.

    Args:
        sae: The autoencoder.
        how: What it cannot be, such as "written as saev".

    Raises:
        LightsaeError: Naming the normalisation.

    Example:
        >>> require_no_row_statistics(SparseAutoencoder(4, 32, None, "unit_norm"), "folded")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: normalization unit_norm cannot be folded: it divides each \
row by a number of its own
    """
    if sae.normalization in ROW_WISE:
        raise LightsaeError(
            f"normalization {sae.normalization} cannot be {how}: "
            "it divides each row by a number of its own"
        )
