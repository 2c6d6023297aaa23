"""Where an autoencoder comes from: what `SparseAutoencoder.provenance` holds of one of a format."""

from collections.abc import Iterable, Mapping
from typing import Any

from lightsae.sae import SparseAutoencoder


def origin(
    format_name: str,
    config: Mapping[str, Any],
    *,
    model: str | None = None,
    hook: str | None = None,
    target_hook: str | None = None,
    layer: int | None = None,
    version: str | None = None,
    notes: Iterable[str] = (),
) -> dict[str, Any]:
    """Where an autoencoder comes from, as `SparseAutoencoder.provenance` keeps it.

    Args:
        format_name: `NAME` of the format.
        config: The configuration as the files have it, JSON.
        model: Name of the model that was read.
        hook: Name of the place in it.
        target_hook: Name of the place that a transcoder reconstructs.
        layer: Number of its layer.
        version: Of the library that wrote it.
        notes: In what it is not what the library makes of it, or not ready, and what to do.

    Example:
        >>> origin("saev", {"d_sae": 4}, layer=11)
        {'format': 'saev', 'layer': 11, 'config': {'d_sae': 4}}
    """
    known = {
        "format": format_name,
        "model": model,
        "hook": hook,
        "target_hook": target_hook,
        "layer": layer,
        "version": version,
        "notes": list(notes) or None,
    }
    return {name: value for name, value in known.items() if value is not None} | {
        "config": dict(config)
    }


def original_config(sae: SparseAutoencoder, format_name: str, *keys: str) -> dict[str, Any]:
    """The configuration, or the part of it, that an autoencoder of a format came with.

    Args:
        sae: The autoencoder.
        format_name: `NAME` of the format.
        keys: Names that lead to the part.

    Returns:
        The mapping; empty if it came from elsewhere or has no such part.

    Example:
        >>> sae = SparseAutoencoder(4, 32)
        >>> sae.provenance = origin("saelens", {"metadata": {"model_name": "vit"}})
        >>> original_config(sae, "saelens", "metadata"), original_config(sae, "sparsify")
        ({'model_name': 'vit'}, {})
    """
    found: Any = sae.provenance.get("config") if sae.provenance.get("format") == format_name else {}
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return dict(found) if isinstance(found, dict) else {}
