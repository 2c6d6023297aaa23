"""Files of every format, small."""

from pathlib import Path

from lightsae.errors import LightsaeError
from lightsae.interop import FORMATS
from lightsae.sae import SparseAutoencoder

from .ours import RULES, ours


def example(name: str) -> SparseAutoencoder:
    """An autoencoder that a format can hold: of the first rule and normalisation it has."""
    for normalization in ("none", "layer_norm_unbiased"):
        for rule in RULES:
            sae = ours(rule, normalization, d_in=4, d_sae=12)
            sae.b_dec.data.zero_()
            try:
                FORMATS[name].files(sae)
            except LightsaeError:
                continue
            return sae
    raise AssertionError(f"{name} holds none of ours")


def write(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
