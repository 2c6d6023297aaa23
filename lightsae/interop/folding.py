"""An autoencoder without its input scale and without subtracting b_dec: what every format holds."""

from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.weights import Weights
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
    return weights._replace(b_enc=input_bias(sae, weights)) if sae.apply_b_dec_to_input else weights


def input_bias(sae: SparseAutoencoder, weights: Weights) -> Tensor:
    """b_enc - W_enc b_dec, summed in float64, in the dtype of b_enc."""
    shift = weights.W_enc.double() @ weights.b_dec.double()
    return (weights.b_enc.double() - shift).to(sae.b_enc.dtype)


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
