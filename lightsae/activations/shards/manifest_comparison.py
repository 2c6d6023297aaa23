"""Whether two manifests describe the same extraction, and the first setting that differs."""

from pathlib import Path
from typing import Any

from lightsae.activations.shards.manifest import IMAGES_FROM, Manifest
from lightsae.errors import LightsaeError

_SAME = ("d_in", "dtype", "model", "weights_hash", "layer", "tokens", "has_labels", "classes")


def check_same(found: Manifest, wanted: Manifest, folder: Path) -> None:
    """Refuse to continue a folder that something else began.

    Args:
        found: The folder's manifest.
        wanted: What is about to be written.
        folder: Its name, for the message.

    Raises:
        LightsaeError: Naming the first setting that differs and both values.
    """
    for name, there, here in differences(found, wanted):
        raise LightsaeError(
            f"{folder}: was begun with {name} = {there!r}, this command has {here!r}: "
            "use the same settings or another folder"
        )


def differences(found: Manifest, wanted: Manifest) -> list[tuple[str, Any, Any]]:
    """In what two manifests differ that make one folder only if they agree.

    Args:
        found: One.
        wanted: The other.

    Returns:
        Of each setting that differs the name and both values.

    Example:
        >>> differences(Manifest(4, "float16", layer="a"), Manifest(4, "float16", layer="b"))
        [('layer', 'a', 'b')]
    """
    pairs = [(name, getattr(found, name), getattr(wanted, name)) for name in _SAME]
    keys = [key for key in {**found.settings, **wanted.settings} if key != IMAGES_FROM]
    pairs += [(key, found.settings.get(key), wanted.settings.get(key)) for key in keys]
    return [(name, there, here) for name, there, here in pairs if there != here]
