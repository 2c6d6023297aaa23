"""The trained autoencoder that a fresh one starts as."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch

from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.sae import SparseAutoencoder
from lightsae.sae.save_load import SETTINGS, read_settings
from lightsae.training.untrained_check import is_untrained


class Start(TypedDict):
    """What a run started as, as its checkpoints keep it.

    Attributes:
        xxh3: Hash of the saved autoencoder.
        provenance: Where that was from.
    """

    xxh3: str
    provenance: dict[str, Any]


@torch.no_grad()
def start_from(folder: str, sae: SparseAutoencoder) -> Start | None:
    """Give an autoencoder the provenance of a saved one, and its weights if it is untrained.

    What a selection rule has learned goes over where both have the same rule. Nothing is done where
    the folder is gone: a run that goes on does without it, see `require_started`.

    Args:
        folder: With sae.json and sae.safetensors.
        sae: What is trained; changed in place.

    Returns:
        What the folder holds; None where it is gone.

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
        >>> start_from(folder, fresh)["provenance"]
        {}
        >>> torch.equal(fresh.W_dec, trained.W_dec)
        True
    """
    path = Path(expanded(folder))
    if not (path / SETTINGS).is_file():
        return None
    saved = SparseAutoencoder.load(path)
    if type(saved) is not type(sae):
        kinds = f"{type(saved).__name__}, the model is a {type(sae).__name__}"
        raise LightsaeError(f"model.start_from: {path} is a {kinds}")
    for what in ("d_in", "d_out", "d_sae", "normalization", "apply_b_dec_to_input"):
        found, wanted = getattr(saved, what), getattr(sae, what)
        if found != wanted:
            raise LightsaeError(f"model.start_from: {path} has {what} {found}, the model {wanted}")
    if is_untrained(saved):
        raise LightsaeError(f"model.start_from: {path} is untrained, expected a trained one")
    sae.provenance = saved.provenance
    if is_untrained(sae):
        state, same_rule = saved.state_dict(), type(saved.selection) is type(sae.selection)
        for name, tensor in sae.state_dict().items():
            if same_rule or not name.startswith("selection."):
                tensor.copy_(state[name])
    return Start(xxh3=read_settings(path / SETTINGS)["xxh3"], provenance=saved.provenance)


def start_of_checkpoint(checkpoint: Mapping[str, Any]) -> Start | None:
    """What the run of a checkpoint started as; None if that was fresh.

    Raises:
        LightsaeError: If the checkpoint says something else of it.
    """
    found = checkpoint.get("start")
    if found is None:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("provenance"), dict):
        raise LightsaeError("holds a start that no run has written")
    return Start(xxh3=str(found.get("xxh3")), provenance=found["provenance"])


def require_same_start(before: Start | None, now: Start | None) -> None:
    """Refuse to go on with a run as if it had started as another autoencoder.

    Args:
        before: Of its checkpoint.
        now: Of the module; None where its folder is gone or was not given.

    Raises:
        LightsaeError: If it is another one.

    Example:
        >>> require_same_start(None, {"xxh3": "a", "provenance": {}})
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: is of a run that started as another autoencoder than \
model.start_from
    """
    if now is not None and (before is None or before["xxh3"] != now["xxh3"]):
        raise LightsaeError("is of a run that started as another autoencoder than model.start_from")


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
