"""Whether an autoencoder still has the parameters that its constructor gave it."""

import torch

from lightsae.sae import SparseAutoencoder


def is_untrained(sae: SparseAutoencoder) -> bool:
    """Whether scale, biases and tied weights are those that every autoencoder starts with.

    Training moves them apart, and so does `SparseAutoencoder.initialize_`.

    Example:
        >>> sae = SparseAutoencoder(d_in=4, d_sae=32)
        >>> is_untrained(sae)
        True
        >>> sae.initialize_(torch.randn(9, 4))
        >>> is_untrained(sae)
        False
    """
    return (
        bool(sae.scale == 1)
        and not sae.b_dec.any()
        and not sae.b_enc.any()
        and torch.equal(sae.W_enc, sae.W_dec)
    )
