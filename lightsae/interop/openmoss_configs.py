"""What the configurations of OpenMOSS, old and new, have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightsae.errors import LightsaeError
from lightsae.interop.shown_values import shown


def require_plain(config: Mapping[str, Any], path: Path) -> None:
    """Refuse what is no autoencoder of one layer with one encoder.

    Raises:
        LightsaeError: Naming the file and the setting.

    Example:
        >>> require_plain({"sae_type": "clt"}, Path("config.json"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: config.json: sae_type is 'clt', expected 'sae'
    """
    kind = config.get("sae_type", "sae")
    if kind != "sae":
        raise LightsaeError(f"{path}: sae_type is {shown(kind)}, expected 'sae'")
    place, target = config.get("hook_point_in"), config.get("hook_point_out")
    if target not in (None, place):
        raise LightsaeError(f"{path}: a transcoder from {shown(place)} to {shown(target)}")
    if config.get("use_glu_encoder"):
        raise LightsaeError(f"{path}: use_glu_encoder is set: a second encoder has no place")
