"""The trained autoencoder that a fresh one starts as."""

from pathlib import Path

import torch

from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.sae import SparseAutoencoder
from lightsae.sae.save_load import SETTINGS
from lightsae.training.untrained_check import is_untrained


@torch.no_grad()
def start_from(folder: str, sae: SparseAutoencoder) -> None:
    """Give an autoencoder the provenance of a saved one, and its weights if it is untrained.

    What a selection rule has learned goes over where both have the same rule. Nothing is done where
    the folder is gone: a run that goes on does without it, see `require_started`.

    Args:
        folder: With sae.json and sae.safetensors.
        sae: What is trained; changed in place.

    Raises:
        LightsaeError: If a file is malformed, or class, d_in, d_out, d_sae, normalization or
            whether b_dec is subtracted from inputs differs.

    Example:
        >>> import tempfile
        >>> from lightsae.sae import TopK
        >>> folder, trained = tempfile.mkdtemp(), SparseAutoencoder(4, 16, TopK(2))
        >>> trained.initialize_(torch.randn(9, 4))
        >>> trained.save(folder)
        >>> fresh = SparseAutoencoder(4, 16, TopK(4))
        >>> start_from(folder, fresh)
        >>> torch.equal(fresh.W_dec, trained.W_dec)
        True
    """
    path = Path(expanded(folder))
    if not (path / SETTINGS).is_file():
        return
    saved = SparseAutoencoder.load(path)
    if type(saved) is not type(sae):
        kinds = f"{type(saved).__name__}, the model is a {type(sae).__name__}"
        raise LightsaeError(f"model.start_from: {path} is a {kinds}")
    for what in ("d_in", "d_out", "d_sae", "normalization", "apply_b_dec_to_input"):
        found, wanted = getattr(saved, what), getattr(sae, what)
        if found != wanted:
            raise LightsaeError(f"model.start_from: {path} has {what} {found}, the model {wanted}")
    sae.provenance = saved.provenance
    if not is_untrained(sae):
        return
    state, same_rule = saved.state_dict(), type(saved.selection) is type(sae.selection)
    for name, tensor in sae.state_dict().items():
        if same_rule or not name.startswith("selection."):
            tensor.copy_(state[name])


def require_started(folder: str | None, sae: SparseAutoencoder) -> None:
    """Refuse to train an autoencoder that should have started as another, and did not.

    Args:
        folder: Of that other one, or None.
        sae: What is about to be trained, a checkpoint's weights included.

    Raises:
        LightsaeError: If it is untrained all the same.
    """
    if folder is not None and is_untrained(sae):
        raise LightsaeError(f"model.start_from: {folder} holds no {SETTINGS}")
