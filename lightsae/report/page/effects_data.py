"""What latents do to class logits, for the page's open latent."""

from typing import Any

import numpy as np
import torch

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.interventions.class_effects.result import FILE, ClassEffects, LogitChange
from lightsae.report.page.packing import ArrayPack
from lightsae.report.reading.run_inputs import RunInputs

EDITS = ("ablation", "amplification")
_MOST_CLASSES = 5


def read_effects(run: RunInputs) -> ClassEffects | None:
    """The class effects in a run folder, or None where there are none.

    Args:
        run: The run.

    Raises:
        LightsaeError: If the file is malformed, or of a dictionary of another size.
    """
    path = run.folder / FILE
    if not path.is_file():
        return None
    effects = ClassEffects.load(run.folder)
    if effects.d_sae != run.result.d_sae:
        raise LightsaeError(
            f"{path}: d_sae = {effects.d_sae}, the evaluation beside it has {run.result.d_sae}"
        )
    return effects


def pack_effects(effects: ClassEffects, place: int, pack: ArrayPack) -> dict[str, Any]:
    """The classes whose logits change most under each edit: arrays into the pack, the rest as JSON.

    Args:
        effects: Of some latents.
        place: Number of the run on the page.
        pack: Takes the arrays, under `run/name`; rows of latents that were not measured are -1.
    """
    rows = np.full(effects.d_sae, -1, np.int64)
    rows[effects.latents.numpy()] = np.arange(len(effects.latents))
    pack.add(f"{place}/effects_row", rows)
    pack.add(f"{place}/effects_firing", effects.firing.numpy())
    for edit in EDITS:
        classes, figures = _largest(getattr(effects, edit))
        pack.add(f"{place}/{edit}_classes", classes)
        for name, values in figures.items():
            pack.add(f"{place}/{edit}_{name}", values)
    return {
        "layer": effects.layer, "amplify": effects.amplify, "images": effects.images,
        "controls": effects.controls.shape[1],
    }  # fmt: skip


def _largest(change: LogitChange) -> tuple[Array, dict[str, Array]]:
    """Of each latent the classes that change most, [m, most], and their figures."""
    size = change.mean.abs().nan_to_num(-1)
    most = min(_MOST_CLASSES, size.shape[1])
    places = size.argsort(dim=1, descending=True, stable=True)[:, :most]
    figures = {
        name: torch.gather(values, 1, places).numpy() for name, values in change._asdict().items()
    }
    return places.numpy(), figures
