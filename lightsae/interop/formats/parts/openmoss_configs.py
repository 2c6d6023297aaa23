"""What the configurations of OpenMOSS, old and new, have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import setting
from lightsae.interop.files.shown_values import shown
from lightsae.interop.translation.transcoders import require_place
from lightsae.sae import SparseAutoencoder, Transcoder


def require_plain(config: Mapping[str, Any], path: Path) -> None:
    """Refuse what is no autoencoder or transcoder of one layer with one encoder.

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
    if config.get("use_glu_encoder"):
        raise LightsaeError(f"{path}: use_glu_encoder is set: a second encoder has no place")


def target_hook(config: Mapping[str, Any], path: Path) -> str | None:
    """The place that a transcoder reconstructs; of an autoencoder None.

    Raises:
        LightsaeError: If it is not text.

    Example:
        >>> config = {"hook_point_in": "ln2.hook_normalized", "hook_point_out": "hook_mlp_out"}
        >>> target_hook(config, Path("config.json"))
        'hook_mlp_out'
    """
    place, target = config.get("hook_point_in"), config.get("hook_point_out")
    if target in (None, place):
        return None
    found: str = setting(config, "hook_point_out", str, path)
    return found


def places(sae: SparseAutoencoder, format_name: str) -> tuple[str, str]:
    """Names of the places that are read and reconstructed; only a transcoder's are two.

    Raises:
        LightsaeError: If it is a transcoder that has no place in the format.

    Example:
        >>> places(SparseAutoencoder(4, 32), "openmoss")
        ('unknown', 'unknown')
    """
    hook = _told(sae, "hook", "unknown")
    if not isinstance(sae, Transcoder):
        return hook, hook
    require_place(sae, format_name, skip=False)
    target = _told(sae, "target_hook", f"target of {hook}")
    if target == hook:
        raise LightsaeError(
            f"{format_name} tells a transcoder by two places, the provenance has {shown(hook)} "
            "as hook and as target_hook"
        )
    return hook, target


def _told(sae: SparseAutoencoder, key: str, default: str) -> str:
    """What the provenance says, if it is text."""
    found = sae.provenance.get(key)
    return found.encode(errors="replace").decode() if isinstance(found, str) else default
