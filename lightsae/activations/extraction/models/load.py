"""Frozen models, built and loaded."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models.libraries import (
    open_clip_models,
    timm_models,
    torchvision_models,
    transformers_models,
)
from lightsae.activations.extraction.models.libraries.described import images_part
from lightsae.activations.extraction.models.libraries.failure import NO_TENSORS
from lightsae.activations.extraction.models.libraries.hub_access import hub_or_cache
from lightsae.activations.extraction.models.name_lookup import import_object
from lightsae.activations.extraction.models.options import ModelOptions
from lightsae.activations.shards.checked_read import checksum
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.module_names import named_as, plain_name
from lightsae.torch_files import read_torch_file

_BUILD: dict[str, Callable[[str, bool, dict[str, Any]], nn.Module]] = {
    "timm": timm_models.build,
    "open_clip": open_clip_models.build,
    "transformers": transformers_models.build,
    "torchvision": torchvision_models.build,
}


def load_model(options: ModelOptions) -> nn.Module:
    """Build a frozen model in evaluation mode.

    Args:
        options: Which model and which weights.

    Returns:
        The module; no parameter requires a gradient. Parameters that no weights were given for
        are drawn with a fixed seed, so that an interrupted extraction finds them again.

    Raises:
        LightsaeError: If the name, path, arguments or weights are wrong, naming them.

    Example:
        >>> load_model(ModelOptions(module="torch.nn.Identity"))
        Identity()
    """
    module = load_whole_model(options)
    return module if options.name is None else images_part(module)


def load_whole_model(options: ModelOptions) -> nn.Module:
    """As `load_model`, but a model of images and text keeps both parts.

    Args:
        options: Which model and which weights.

    Raises:
        LightsaeError: As `load_model`.
    """
    if (options.name is None) == (options.module is None):
        raise LightsaeError("model: give either name (and its library) or module (a class path)")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = _build(options)
    if options.weights is not None:
        _load_weights(module, Path(options.weights))
    given = f"name {options.name}" if options.name is not None else f"module {options.module}"
    return _frozen(module, f"model.{given}")


def load_image_classifier(options: ModelOptions) -> nn.Module:
    """The classifier of images whose encoder is a model of transformers.

    Args:
        options: The encoder, by name.

    Returns:
        The module in evaluation mode; no parameter requires a gradient.

    Raises:
        LightsaeError: If the checkpoint has no classifier, or weights come from another file.
    """
    title = f"model.name {options.name}"
    if options.weights is not None or not options.pretrained:
        raise LightsaeError(
            f"{title}: its classifier is taken from a folder or name with all weights, expected no "
            "model.weights and no model.pretrained false"
        )
    with hub_or_cache(options):
        module = transformers_models.build_classifier(str(options.name), options.arguments)
    return _frozen(module, title)


def _frozen(module: nn.Module, title: str) -> nn.Module:
    """A module in evaluation mode, all of whose parameters have values."""
    for name, tensor in module.named_parameters():
        lazy = nn.parameter.is_lazy(tensor)
        if lazy or tensor.is_meta:
            kind = "lazy" if lazy else "meta"
            raise LightsaeError(f"{title}: its parameter {name} has no values ({kind})")
    try:
        return module.eval().requires_grad_(False)
    except Exception as error:
        message = f"{title}: cannot be put into evaluation mode: {reason(error)}"
        raise LightsaeError(message) from error


def _build(options: ModelOptions) -> nn.Module:
    """Construct the module."""
    if options.name is not None:
        fetch = options.pretrained and options.weights is None
        with hub_or_cache(options):
            return _BUILD[options.library](options.name, fetch, options.arguments)
    build = import_object(options.module or "", "model.module")
    try:
        module = build(**options.arguments)
    except Exception as error:
        message = f"model.module {options.module}: cannot be built: {reason(error)}"
        raise LightsaeError(message) from error
    if not isinstance(module, nn.Module):
        raise LightsaeError(f"model.module {options.module} made no nn.Module")
    return module


def _load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict from a file that may not run code."""
    if not path.is_file():
        raise LightsaeError(f"model.weights: there is no file {path}")
    state = _tensors(path)
    if not isinstance(state, Mapping):
        kind = type(state).__name__
        raise LightsaeError(f"model.weights: {path} holds a {kind}, expected a state_dict")
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state.get(key), Mapping) else state
    try:
        module.load_state_dict(named_as(module.state_dict(), state))
    except Exception as error:
        raise LightsaeError(
            f"model.weights: {path} does not fit {type(module).__name__}: {reason(error)}"
        ) from error


def _tensors(path: Path) -> Any:
    """What a file of weights holds."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return read_torch_file(path)
    except Exception as error:
        why = str(error) if isinstance(error, LightsaeError) else reason(error)
        raise LightsaeError(f"model.weights: {path} cannot be read, {NO_TENSORS}: {why}") from error


def weights_hash(module: nn.Module) -> str:
    """Hash of a module's parameters and buffers, 16 hexadecimal digits.

    Raises:
        LightsaeError: If its state holds anything else.

    Example:
        >>> weights_hash(nn.Linear(2, 2)) == weights_hash(nn.Linear(2, 2))
        False
    """
    state = _state_parts(module)
    return f"{checksum(*state):016x}"


def _state_parts(module: nn.Module) -> list[bytes | Any]:
    """Names and bytes of a module's state, in the order of names; compiled or not, the same."""
    parts: list[bytes | Any] = []
    state = {plain_name(name): tensor for name, tensor in module.state_dict().items()}
    for name, tensor in sorted(state.items()):
        if not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise LightsaeError(f"model: its state {name} is a {kind}, expected a tensor")
        parts.append(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        parts.append(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return parts
