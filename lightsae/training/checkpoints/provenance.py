"""Which shards a model was trained on, compared on resume and on evaluation."""

from collections.abc import Mapping

from lightsae.errors import LightsaeError


def shards_of(data: object) -> dict[str, str]:
    """What tells a data module's shards from others: digest, model and layer, of targets too.

    Args:
        data: Any data module, or None; what it does not know is left out.

    Example:
        >>> shards_of(None)
        {}
    """
    manifest = getattr(data, "manifest", None)
    embeddings = getattr(getattr(data, "sample_embeddings", None), "manifest", None)
    targets = getattr(data, "target_manifest", None)
    known = {
        "digest": getattr(data, "digest", None),
        "model": getattr(manifest, "model", None),
        "layer": getattr(manifest, "layer", None),
        "embeddings digest": embeddings and embeddings.digest(),
        "targets digest": targets and targets.digest(),
        "targets layer": targets and targets.layer,
    }
    return {name: str(value) for name, value in known.items() if value}


def require_same_shards(trained_on: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Refuse to go on with a run on shards that are not those it was trained on.

    Raises:
        LightsaeError: If both have a digest and these differ.

    Example:
        >>> require_same_shards({"digest": "a"}, {"digest": "b"})
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: other shards (digest 'a', now 'b')
    """
    for name in ("digest", "embeddings digest", "targets digest"):
        was, now = trained_on.get(name), found.get(name)
        if was and now and was != now:
            raise LightsaeError(f"other shards ({name} {was!r}, now {now!r})")


def require_same_source(trained_on: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Refuse to evaluate on activations of another model or layer; other shards are welcome.

    Raises:
        LightsaeError: If both name a model, or a layer, and these differ.

    Example:
        >>> require_same_source({"layer": "blocks.3"}, {"layer": "blocks.5"})
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: layer 'blocks.3', not 'blocks.5'
    """
    for name in ("model", "layer", "targets layer"):
        was, now = trained_on.get(name), found.get(name)
        if was and now and was != now:
            raise LightsaeError(f"{name} {was!r}, not {now!r}")
