"""Weights of a checkpoint: of a module, of a state dict, or of a safetensors file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.module_names import plain_name

Checkpoint = nn.Module | Mapping[str, Tensor] | str | Path
_DDP = "module."
_EXTRA = "_extra_state"


class Weights(NamedTuple):
    """What a task vector is made of, and what it leaves alone.

    Attributes:
        tensors: Floating-point weights by name, without names of wrappers.
        others: Names of what else is there: buffers of a module, second names of tied weights,
            tensors of integers.
        tied: Of the second names of tied weights the first.
    """

    tensors: dict[str, Tensor]
    others: set[str]
    tied: dict[str, str]


def read_weights(checkpoint: Checkpoint, role: str) -> Weights:
    """The weights of a checkpoint; those of a module are its parameters, without buffers.

    Args:
        checkpoint: A module, a state dict, or the path of a safetensors file.
        role: What messages call it: base, tuned.

    Raises:
        LightsaeError: If the file is missing or malformed, a value of a state dict is no tensor,
            or there are no weights.

    Example:
        >>> read_weights(nn.BatchNorm1d(2), "base").tensors.keys()
        dict_keys(['weight', 'bias'])
        >>> read_weights("no.safetensors", "tuned")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: tuned: no.safetensors is not there
    """
    if isinstance(checkpoint, nn.Module):
        given: dict[str, Tensor] = {**all_parameters(checkpoint)}
        # Buffers that are not saved may be in another's file.
        names = {*checkpoint.state_dict(), *given, *(n for n, _ in checkpoint.named_buffers())}
    else:
        state = checkpoint if isinstance(checkpoint, Mapping) else _file(checkpoint, role)
        given = _tensors(state, role)
        names = set(given)
    plain = without_wrappers(names)
    weights = {plain[name]: each for name, each in given.items() if each.is_floating_point()}
    if not weights:
        raise LightsaeError(f"{role} has no floating-point weights")
    tied = _tied(weights)
    tensors = {name: each.detach() for name, each in weights.items() if name not in tied}
    return Weights(tensors, set(plain.values()) - set(tensors), tied)


def all_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters under each of their names, of tied ones more than one."""
    return dict(model.named_parameters(remove_duplicate=False))


def without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Of each name that which it has in a model that nothing wraps.

    Args:
        names: Of all tensors: `module.`, which DDP puts in front, goes where all of them have it.

    Example:
        >>> without_wrappers(["module._orig_mod.head.weight", "module.bias"])
        {'module._orig_mod.head.weight': 'head.weight', 'module.bias': 'bias'}
    """
    plain = {name: plain_name(name) for name in names}
    if all(name.startswith(_DDP) for name in plain.values()):
        plain = {name: plain_name(found.removeprefix(_DDP)) for name, found in plain.items()}
    return plain


def of_one_name(base: Weights, tuned: Weights) -> tuple[Weights, Weights]:
    """Both with each weight that is tied in one of them under one name, the same in both.

    Args:
        base: What was fine-tuned.
        tuned: What came of it.

    Raises:
        LightsaeError: If one has two that differ where the other has one under two names.

    Example:
        >>> one, two = torch.ones(1), torch.zeros(1)
        >>> base = Weights({"embed": one}, {"head"}, {"head": "embed"})
        >>> of_one_name(base, Weights({"head": two}, set(), {}))[1].tensors
        {'embed': tensor([0.])}
    """
    names = dict(base.tied)
    for pair in tuned.tied.items():
        second, first = (_followed(name, names) for name in pair)
        if second != first:
            names[second] = first
    return _renamed(base, names, "base"), _renamed(tuned, names, "tuned")


def _followed(name: str, names: Mapping[str, str]) -> str:
    while name in names:
        name = names[name]
    return name


def _renamed(weights: Weights, names: Mapping[str, str], role: str) -> Weights:
    found: dict[str, Tensor] = {}
    for name, each in weights.tensors.items():
        known = found.setdefault(_followed(name, names), each)
        if known is not each and not torch.equal(known, each):
            raise LightsaeError(
                f"{name} and {_followed(name, names)} differ in {role}, but are one weight in the "
                "other checkpoint, expected weights of one model"
            )
    others = weights.others | set(weights.tensors) - set(found)
    return weights._replace(tensors=found, others=others)


def require_same_names(base: Weights, tuned: Weights) -> None:
    """Refuse checkpoints of different models.

    Args:
        base: What was fine-tuned.
        tuned: What came of it.

    Raises:
        LightsaeError: If one has a weight that the other lacks, or of another shape.
    """
    sides = (("tuned", base, tuned), ("base", tuned, base))
    for role, own, other in sides:
        missing = sorted(own.tensors.keys() - other.tensors.keys() - other.others)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise LightsaeError(f"{role} lacks {missing[0]}{more}, expected weights of one model")
    for name, tensor in base.tensors.items():
        if name in tuned.tensors and tuned.tensors[name].shape != tensor.shape:
            shapes = list(tuned.tensors[name].shape), list(tensor.shape)
            raise LightsaeError(f"{name} is {shapes[0]} in tuned, expected {shapes[1]} as in base")


def _tensors(state: Mapping[str, object], role: str) -> dict[str, Tensor]:
    """The tensors of a state dict."""
    found = {}
    for name, each in state.items():
        if isinstance(each, Tensor):
            found[name] = each
        elif not name.endswith(_EXTRA):
            hint = f": give {role}[{name!r}]" if isinstance(each, Mapping) else ""
            raise LightsaeError(
                f"{role}: {name} is of {type(each).__name__}, expected tensors by name{hint}"
            )
    return found


def _tied(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Of each name whose numbers another has before it, that other."""
    first: dict[tuple[object, ...], str] = {}
    found = {}
    for name, each in weights.items():
        if each.numel() and not each.is_meta:
            place = (each.device, each.data_ptr(), each.dtype, each.shape, each.stride())
            if first.setdefault(place, name) != name:
                found[name] = first[place]
    return found


def _file(path: str | Path, role: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    path = Path(expanded(path))
    if path.is_dir():
        raise LightsaeError(f"{role}: {path} is a folder, expected a safetensors file")
    if not path.is_file():
        raise LightsaeError(f"{role}: {path} is not there")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise LightsaeError(f"{role}: {path} cannot be read as safetensors: {error}") from error
