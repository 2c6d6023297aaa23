"""Modules of a model by the names that users give them."""

from collections.abc import Sequence

import torch
from torch import nn

from lightsae.activations.extraction.models.name_lookup import closest, layer_names
from lightsae.errors import LightsaeError
from lightsae.module_names import plain_name


def unwrapped(module: nn.Module) -> nn.Module:
    """What DistributedDataParallel or DataParallel runs; any other model is itself.

    Raises:
        LightsaeError: If it is a program of TorchScript, whose modules take no hooks.

    Example:
        >>> unwrapped(nn.DataParallel(nn.Linear(2, 3)))
        Linear(in_features=2, out_features=3, bias=True)
    """
    if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
        module = module.module
    if isinstance(module, torch.jit.ScriptModule):
        raise LightsaeError(
            f"model: {type(module).__name__} is a program of TorchScript, whose layers cannot "
            "be watched; give the nn.Module that it was made of"
        )
    return module


def named_layers(
    module: nn.Module, layers: str | int | Sequence[str | int]
) -> dict[str, nn.Module]:
    """The modules of some names; of a compiled module what was compiled.

    Args:
        module: The model.
        layers: Names as in `named_modules` of a model that is not compiled, or one name; the
            modules of a Sequential may be given as numbers.

    Raises:
        LightsaeError: If there is no such module (the closest names are offered), or it is a list
            of modules.

    Example:
        >>> named_layers(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), 1)
        {'1': ReLU()}
    """
    kind = type(module).__name__
    modules: dict[str, nn.Module] = {}
    for name, item in module.named_modules():
        # Of a compiled module what was compiled comes after it.
        modules[plain_name(name)] = item
    del modules[""]
    found = {}
    for layer in layer_names(layers):
        if layer not in modules:
            raise LightsaeError(f"layer: {kind} has no module {layer!r}{closest(layer, modules)}")
        if isinstance(modules[layer], nn.ModuleList | nn.ModuleDict):
            kind = type(modules[layer]).__name__
            raise LightsaeError(
                f"layer: {layer!r} is a {kind}, which does not run itself: name one of its modules"
            )
        found[layer] = modules[layer]
    return found
