"""The model that shards were extracted from: by their manifest, or as a user names it."""

import json
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import torch
from torch import nn

from lightsae.activations.extraction.models import (
    Library,
    ModelOptions,
    load_image_classifier,
    load_model,
    weights_hash,
)
from lightsae.activations.shards.manifest import Manifest
from lightsae.errors import LightsaeError
from lightsae.extras import require

_DIGITS = "lightsae.activations.sources.digits"
# Code that a manifest may name; any other runs only where a user names it.
_TRUSTED = (f"{_DIGITS}.train_digits_vit", f"{_DIGITS}.train_digits_cnn")


class ShardsModel(NamedTuple):
    """The model of shards.

    Attributes:
        module: In evaluation mode, on the CPU.
        layer: Name of the shards' layer in it.
    """

    module: nn.Module
    layer: str


def load_shards_model(manifest: Manifest, given: ModelOptions) -> ShardsModel:
    """The frozen model that shards were extracted from, of transformers' with its classifier.

    Args:
        manifest: Of the shards.
        given: What a user says of it; without name and module the manifest's is taken.

    Returns:
        The model and its layer.

    Raises:
        LightsaeError: If nothing says which it is, it is another, or an encoder of transformers
            without a classifier.
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
    if options.library == "transformers" and options.name is not None:
        return _with_classifier(options, module, manifest.layer)
    return ShardsModel(module, manifest.layer)


def _with_classifier(options: ModelOptions, encoder: nn.Module, layer: str) -> ShardsModel:
    """The classifier that has an encoder in it, which `AutoModel` makes without."""
    classifier = load_image_classifier(options)
    name: str = getattr(classifier, "base_model_prefix", "")
    inner = getattr(classifier, name, None) if name else None
    held = inner.state_dict() if isinstance(inner, nn.Module) else {}
    weights = encoder.state_dict()
    # The encoder alone may have more: a pooler that the classifier does without.
    same = all(each in weights and torch.equal(weights[each], held[each]) for each in held)
    if not held or not same:
        raise LightsaeError(
            f"model {options.title}: its classifier {type(classifier).__name__} does not have the "
            "encoder in it that the shards were extracted from"
        )
    return ShardsModel(classifier, f"{name}.{layer}")


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
