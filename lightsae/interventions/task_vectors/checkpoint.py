"""Weights of a checkpoint: of a module, of a state dict, or of a safetensors file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.module_names import plain_name

Checkpoint = nn.Module | Mapping[str, Tensor] | str | Path
_DDP = "module."


class Weights(NamedTuple):
    """What a task vector is made of, and what it leaves alone.

    Attributes:
        tensors: Floating-point weights by name, without names of wrappers.
        others: Names of what else is there: buffers of a module, second names of tied weights,
            tensors of integers.
    """

    tensors: dict[str, Tensor]
    others: set[str]


def read_weights(checkpoint: Checkpoint, role: str) -> Weights:
    """The weights of a checkpoint; those of a module are its parameters, without buffers.

    Args:
        checkpoint: A module, a state dict, or the path of a safetensors file.
        role: What messages call it: base, tuned.

    Raises:
        LightsaeError: If the file is missing or malformed, or there are no weights.

    Example:
        >>> read_weights(nn.BatchNorm1d(2), "base").tensors.keys()
        dict_keys(['weight', 'bias'])
        >>> read_weights("no.safetensors", "tuned")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: tuned: no.safetensors is not there
    """
    if isinstance(checkpoint, nn.Module):
        kept = {name: parameter.detach() for name, parameter in checkpoint.named_parameters()}
        names = {*checkpoint.state_dict(), *all_parameters(checkpoint)}
    else:
        state = checkpoint if isinstance(checkpoint, Mapping) else _file(checkpoint, role)
        kept, names = dict(state), set(state)
    plain = without_wrappers(names)
    tensors = {plain[name]: tensor for name, tensor in kept.items() if tensor.is_floating_point()}
    if not tensors:
        raise LightsaeError(f"{role} has no floating-point weights")
    return Weights(tensors, set(plain.values()) - set(tensors))


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


def _file(path: str | Path, role: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    path = Path(expanded(path))
    if not path.is_file():
        raise LightsaeError(f"{role}: {path} is not there")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise LightsaeError(f"{role}: {path} cannot be read as safetensors: {error}") from error
