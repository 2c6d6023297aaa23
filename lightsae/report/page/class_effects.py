"""What latents do to class logits, as far as a page shows it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightsae.activations.extraction.models import weights_hash
from lightsae.errors import LightsaeError
from lightsae.interventions import ClassEffects
from lightsae.interventions.class_effects.result import EDITS, FILE, LogitChange
from lightsae.report.page.packing import ArrayPack
from lightsae.sae import SparseAutoencoder

# Classes that a page shows of either sign.
_OF_EACH_SIGN = 3


def read_class_effects(folder: Path, sae: SparseAutoencoder) -> ClassEffects | None:
    """The class effects in a run folder, or None if there are none.

    Args:
        folder: The run folder.
        sae: Its autoencoder.

    Raises:
        LightsaeError: If they are malformed, or those of another autoencoder.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    effects = ClassEffects.load(folder)
    if effects.autoencoder != weights_hash(sae):
        raise LightsaeError(
            f"{path} is of another autoencoder than {folder / 'sae'}: run `lightsae effects` again"
        )
    return effects


def largest_changes(change: LogitChange) -> dict[str, Tensor]:
    """The classes whose logits rise and fall most, the largest rise first.

    Args:
        change: Changes of [m, classes].

    Returns:
        `classes` [m, n] int64, -1 for none, and of each field of `LogitChange` and of its
        `q_value` the values there, [m, n] float32, NaN for none; n is six, or twice the number of
        classes.

    Example:
        >>> mean = torch.tensor([[0.5, -0.1, 0.0, -0.4]])
        >>> found = largest_changes(LogitChange(*[mean] * 4, p_value=mean.abs()))
        >>> found["classes"].tolist()
        [[0, -1, -1, -1, 1, 3]]
    """
    mean = change.mean.nan_to_num(0)
    order = mean.argsort(dim=1, descending=True, stable=True)
    n = min(_OF_EACH_SIGN, mean.shape[1])
    classes = torch.cat([order[:, :n], order[:, -n:]], dim=1)
    here = mean.gather(1, classes)
    shown = torch.cat([here[:, :n] > 0, here[:, n:] < 0], dim=1)
    found = {
        name: values.gather(1, classes).where(shown, torch.nan)
        for name, values in (change._asdict() | {"q_value": change.q_value}).items()
    }
    return {"classes": classes.where(shown, -1), **found}


def effects_contents(
    place: int, effects: ClassEffects | None, classes: list[str], pack: ArrayPack
) -> dict[str, Any] | None:
    """Class effects of a run: arrays into the pack, the rest as JSON.

    Args:
        place: Number of the run on the page.
        effects: The effects; None where none were measured.
        classes: Names of the classes of the run's images, which are those of the logits if there
            are as many.
        pack: Takes the arrays, under `place/effects/name`.
    """
    if effects is None:
        return None
    pack.add(f"{place}/effects/latents", effects.latents.numpy())
    pack.add(f"{place}/effects/firing", effects.firing.numpy())
    for edit in EDITS:
        for name, values in largest_changes(getattr(effects, edit)).items():
            pack.add(f"{place}/effects/{edit}/{name}", values.numpy())
    return {
        "layer": effects.layer,
        "images": effects.images,
        "amplify": effects.amplify,
        "controls": effects.controls.shape[1],
        "named": effects.ablation.mean.shape[1] == len(classes),
    }
