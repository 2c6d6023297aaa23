"""Which images shards were extracted from, as the manifest remembers it."""

from dataclasses import asdict
from os.path import abspath
from typing import Any

from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.shards.json_values import plain
from lightsae.activations.shards.manifest import IMAGES_FROM, Manifest
from lightsae.errors import LightsaeError

_PATHS = ("folder", "webdataset", "arrays")
# Datasets whose code is known; the others' runs only where a user names them. A whole package is
# not: its commands take arguments, too.
_TRUSTED = ("lightsae.activations.sources.digits.Digits",)


def origin_settings(options: DataOptions) -> dict[str, Any]:
    """What a manifest's settings say of the images.

    Args:
        options: As the extraction was given them.

    Returns:
        The options that are not as by default, under the key of the settings.

    Example:
        >>> origin_settings(DataOptions(folder="/photos", split="test"))
        {'images_from': {'folder': '/photos', 'split': 'test'}}
    """
    default = asdict(DataOptions())
    given = {name: value for name, value in asdict(options).items() if value != default[name]}
    given |= {name: abspath(given[name]) for name in _PATHS if name in given}
    try:
        return {IMAGES_FROM: plain(given, "data")}
    except LightsaeError:  # arguments that JSON cannot hold
        return {}


def images_from(manifest: Manifest, option: str) -> DataOptions | None:
    """The images that shards were extracted from, if their manifest says so.

    Args:
        manifest: Of the shards.
        option: By which a user names a dataset, for the message.

    Raises:
        LightsaeError: If what it says cannot be, or they are items of a class of somebody's own:
            a file from elsewhere could name any code.

    Example:
        >>> manifest = Manifest(4, "float16", settings={"images_from": {"folder": "photos"}})
        >>> images_from(manifest, "--images").folder
        'photos'
    """
    said = manifest.settings.get(IMAGES_FROM)
    if said is None:
        return None
    try:
        options = DataOptions(**said)
    except TypeError as error:
        raise LightsaeError(f"manifest: {IMAGES_FROM} is {said!r}: {error}") from error
    if options.dataset is not None and options.dataset not in _TRUSTED:
        raise LightsaeError(
            f"the images are items of {options.dataset}, which is not imported because a file says "
            f"so: {option} {options.dataset} does"
        )
    return options
