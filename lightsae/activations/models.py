"""Frozen models by name or class path, and where in them activations are taken."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightsae.activations.storage import checksum
from lightsae.activations.told import told
from lightsae.errors import LightsaeError
from lightsae.extras import require


@dataclass
class ModelOptions:
    """The frozen model: a timm name, or any `nn.Module` by class path.

    Attributes:
        name: Name of a timm model, such as vit_small_patch14_dinov2.lvd142m.
        pretrained: Fetch the timm model's pretrained weights, unless `weights` are given.
        module: Dotted path of an nn.Module class or of a function that returns a module,
            instead of `name`.
        arguments: Keyword arguments of the model's constructor.
        weights: Local file of weights (.safetensors, or a torch file of plain tensors).
        prefix_tokens: Number of class and register tokens before the patch tokens; timm models
            say it themselves.

    Raises:
        LightsaeError: If `prefix_tokens` is negative.
    """

    name: str | None = None
    pretrained: bool = True
    module: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    prefix_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.prefix_tokens is not None and self.prefix_tokens < 0:
            raise LightsaeError(f"model.prefix_tokens is {self.prefix_tokens}, expected at least 0")


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
    if (options.name is None) == (options.module is None):
        raise LightsaeError("model: give either name (a timm model) or module (a class path)")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = _build(options)
    if options.weights is not None:
        _load_weights(module, Path(options.weights))
    return module.eval().requires_grad_(False)


def _build(options: ModelOptions) -> nn.Module:
    """Construct the module."""
    if options.name is not None:
        fetch = options.pretrained and options.weights is None
        return _timm_model(options.name, fetch, options.arguments)
    build = import_object(options.module or "", "model.module")
    try:
        module = build(**options.arguments)
    except Exception as error:
        message = f"model.module {options.module}: cannot be built: {told(error)}"
        raise LightsaeError(message) from error
    if not isinstance(module, nn.Module):
        raise LightsaeError(f"model.module {options.module} made no nn.Module")
    return module


def _timm_model(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    """A timm model, or the names closest to what was asked for."""
    timm = require("timm", extra="vision")
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise LightsaeError(f"model.name: timm has no {name!r}{closest(name, known)}")
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:
        raise LightsaeError(f"model.name {name}: cannot be built: {told(error)}") from error
    return module


def _load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict from a file that may not run code."""
    if not path.is_file():
        raise LightsaeError(f"model.weights: there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            state = require("safetensors.torch", extra="vision").load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model"):
            state = state[key] if isinstance(state.get(key), dict) else state
        module.load_state_dict(state)
    except Exception as error:
        raise LightsaeError(
            f"model.weights: {path} does not fit {type(module).__name__}: {told(error)}"
        ) from error


def import_object(path: str, argument: str) -> Any:
    """Import a class or function by its dotted path.

    Args:
        path: Such as "package.module.Class".
        argument: Name of the option, for messages.

    Returns:
        The object.

    Raises:
        LightsaeError: If there is no such object.

    Example:
        >>> import_object("torch.nn.Identity", "model.module").__name__
        'Identity'
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except Exception as error:
        raise LightsaeError(f"{argument}: cannot import {path!r}: {told(error)}") from error


def weights_hash(module: nn.Module) -> str:
    """Hash of a module's parameters and buffers, 16 hexadecimal digits.

    Example:
        >>> weights_hash(nn.Linear(2, 2)) == weights_hash(nn.Linear(2, 2))
        False
    """
    state = _state_parts(module)
    return f"{checksum(*state):016x}"


def _state_parts(module: nn.Module) -> list[bytes | Any]:
    """Names and bytes of a module's state, in the order of names."""
    parts: list[bytes | Any] = []
    for name, tensor in sorted(module.state_dict().items()):
        parts.append(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        parts.append(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return parts


def closest(name: str, known: Iterable[str]) -> str:
    """The names most like one that does not exist, as the end of a message.

    Example:
        >>> closest("block.1", ["blocks.1", "head"])
        "; closest: 'blocks.1'"
    """
    names = difflib.get_close_matches(name, list(known), n=3, cutoff=0.3)
    return f"; closest: {', '.join(repr(item) for item in names)}" if names else ""


class _Reached(Exception):
    """The wanted layer has run; carries its output out of the forward pass."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class LayerTap:
    """Runs a model up to one of its modules.

    Args:
        module: The model.
        layer: Name of the module whose output is wanted, as in `named_modules`.

    Raises:
        LightsaeError: If there is no such module; the closest names are offered.

    Example:
        >>> tap = LayerTap(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), "0")
        >>> tap(torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """

    def __init__(self, module: nn.Module, layer: str) -> None:
        modules = {name: item for name, item in module.named_modules() if name}
        if layer not in modules:
            raise LightsaeError(
                f"layer: {type(module).__name__} has no module {layer!r}{closest(layer, modules)}"
            )
        self.module, self.layer = module, layer
        self._target = modules[layer]

    def __call__(self, images: Tensor) -> Tensor:
        """Run the model on `[B, ...]` and return the layer's output, the first if it has several.

        Raises:
            LightsaeError: If the model cannot take the batch, or the layer did not run or returned
                no tensor.
        """
        handle = self._target.register_forward_hook(_stop)
        try:
            with torch.inference_mode():
                self.module(images)
        except _Reached as reached:
            output = reached.output
        except Exception as error:
            raise LightsaeError(
                f"model: {type(self.module).__name__}, run up to layer {self.layer!r}, cannot take "
                f"a batch of images {list(images.shape)} {images.dtype}: {told(error)}"
            ) from error
        else:
            raise LightsaeError(f"layer: {self.layer!r} is not used by the model's forward pass")
        finally:
            handle.remove()
        if isinstance(output, tuple | list) and output:
            output = output[0]
        if not isinstance(output, Tensor):
            raise LightsaeError(
                f"layer: {self.layer!r} returns {type(output).__name__}, expected a tensor"
            )
        return output


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    """Forward hook that ends the pass."""
    raise _Reached(output)
