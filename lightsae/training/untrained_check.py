"""Whether an autoencoder still has the parameters that its constructor gave it."""

import torch

from lightsae.sae import SparseAutoencoder, Transcoder


def is_untrained(sae: SparseAutoencoder) -> bool:
    """Whether scale, biases and tied weights are those that every autoencoder starts with.

    Training moves them apart, and so does `SparseAutoencoder.initialize_`. The weights of a
    transcoder are not tied; training moves its biases at the first step.

    Example:
        >>> sae = SparseAutoencoder(d_in=4, d_sae=32)
        >>> is_untrained(sae)
        True
        >>> sae.initialize_(torch.randn(9, 4))
        >>> is_untrained(sae)
        False
    """
    if sae.scale != 1 or sae.b_dec.any() or sae.b_enc.any():
        return False
    if isinstance(sae, Transcoder):
        return bool(sae.target_scale == 1) and not sae.b_in.any()
    return torch.equal(sae.W_enc, sae.W_dec)
