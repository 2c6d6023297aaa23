"""The model that shards were extracted from: by their manifest, or as a user names it."""

import json
from dataclasses import replace
from typing import Any, get_args

from torch import nn

from lightsae.activations.extraction.models import (
    Library,
    ModelOptions,
    load_model,
    weights_hash,
)
from lightsae.activations.shards.manifest import Manifest
from lightsae.errors import LightsaeError
from lightsae.extras import require

_DIGITS = "lightsae.activations.sources.digits"
# Code that a manifest may name; any other runs only where a user names it.
_TRUSTED = (f"{_DIGITS}.train_digits_vit", f"{_DIGITS}.train_digits_cnn")


def load_shards_model(manifest: Manifest, given: ModelOptions) -> nn.Module:
    """The frozen model that shards were extracted from.

    Args:
        manifest: Of the shards.
        given: What a user says of it; without name and module the manifest's is taken.

    Returns:
        The module in evaluation mode, on the CPU.

    Raises:
        LightsaeError: If nothing says which it is, or it is another.
    """
    options = shards_model(manifest, given)
    module = load_model(options)
    expected, found = manifest.weights_hash, weights_hash(module)
    if expected and found != expected:
        raise LightsaeError(
            f"model {options.title} has other weights than the one that the shards were extracted "
            f"from (hash {found}, expected {expected}): --model.weights and --model.arguments say "
            "which"
        )
    return module


def shards_model(manifest: Manifest, given: ModelOptions) -> ModelOptions:
    """Options that build the model of shards.

    Args:
        manifest: Of the shards.
        given: What a user says.

    Raises:
        LightsaeError: If nothing says which it is; or a file alone names code, or arguments, which
            could make a library run code.

    Example:
        >>> manifest = Manifest(4, "float16", model="torchvision:vit_b_16")
        >>> shards_model(manifest, ModelOptions()).library
        'torchvision'
        >>> shards_model(Manifest(4, "float16", model="my.Net"), ModelOptions())
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: the shards are of model 'my.Net', which no library knows, \
and code is not imported because a file says so: give --model.name or --model.module
    """
    if given.name is not None or given.module is not None:
        return given
    if not manifest.model:
        raise LightsaeError(
            "the shards do not say which model they are of: give --model.name or --model.module"
        )
    said = manifest.settings.get("arguments") or {}
    if said and not given.arguments:
        raise LightsaeError(
            f"the model {manifest.model} was made with arguments, which are not taken from a file: "
            f"--model.arguments '{json.dumps(said)}' gives them"
        )
    return replace(given, **_named(manifest.model))


def _named(title: str) -> dict[str, Any]:
    """The options behind what a manifest calls a model."""
    library, colon, name = title.partition(":")
    if colon and library in get_args(Library):
        return {"library": library, "name": name}
    if title in _TRUSTED:
        return {"module": title}
    if title.partition(".")[0] in require("timm", extra="vision").list_models():
        return {"library": "timm", "name": title}
    raise LightsaeError(
        f"the shards are of model {title!r}, which no library knows, and code is not imported "
        "because a file says so: give --model.name or --model.module"
    )
