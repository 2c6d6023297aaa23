"""One line on the autoencoder that a run trains; Lightning's summary counts 0 FLOPs for it."""

from lightsae.sae import SparseAutoencoder, Transcoder


def model_summary(sae: SparseAutoencoder) -> str:
    """Its sizes.

    Example:
        >>> from lightsae.sae import TopK
        >>> model_summary(SparseAutoencoder(64, 256, TopK(8)))
        'd_in 64, d_sae 256, k 8, 33,088 parameters'
    """
    parameters = sum(parameter.numel() for parameter in sae.parameters())
    d_out = f", d_out {sae.d_out}" if isinstance(sae, Transcoder) else ""
    sizes = f"d_in {sae.d_in}{d_out}, d_sae {sae.d_sae}, k {sae.selection.k}"
    return f"{sizes}, {parameters:,} parameters"
