"""Names of latents in a run folder."""

from pathlib import Path

from lightsae.activations.extraction.models import weights_hash
from lightsae.dictionaries import LatentNames
from lightsae.dictionaries.naming.names_file import FILE
from lightsae.errors import LightsaeError
from lightsae.sae import SparseAutoencoder


def read_names(folder: Path, sae: SparseAutoencoder) -> LatentNames | None:
    """The names in a run folder, or None if there are none.

    Args:
        folder: The run folder.
        sae: Its autoencoder.

    Raises:
        LightsaeError: If they are malformed, or those of another autoencoder.
    """
    if not (folder / FILE).is_file():
        return None
    names = LatentNames.load(folder)
    own = weights_hash(sae)
    if len(names.alive) != sae.d_sae or names.about.get("autoencoder", own) != own:
        raise LightsaeError(
            f"{folder / FILE} is of another autoencoder than {folder / 'sae'}: "
            "run `lightsae name` again"
        )
    return names


def names_that_hold(folder: Path) -> LatentNames | None:
    """The names in a run folder, if there are any of its autoencoder; of others a page tells.

    Args:
        folder: The run folder.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        return read_names(folder, SparseAutoencoder.load(folder / "sae"))
    except LightsaeError:
        return None
