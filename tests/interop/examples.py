"""Files of every format, small."""

from pathlib import Path

from lightsae.errors import LightsaeError
from lightsae.interop import FORMATS
from lightsae.sae import SparseAutoencoder, Transcoder

from .ours import RULES, our_transcoder, ours

TRANSCODER_FORMATS = [name for name, form in FORMATS.items() if form.TRANSCODERS]


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


def transcoder_example(name: str) -> Transcoder:
    """A transcoder that a format can hold: of the first rule it has, with a skip if it can."""
    for skip in (True, False):
        for rule in RULES:
            made = our_transcoder(rule, skip=skip, d_in=4, d_sae=12)
            try:
                FORMATS[name].files(made)
            except LightsaeError:
                continue
            return made
    raise AssertionError(f"{name} holds no transcoder of ours")


def write(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
