"""Names of modules and tensors without what torch.compile, DDP and FSDP put into them."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def plain_name(name: str) -> str:
    """The name that a module or tensor has in a model that nothing wraps.

    `module.`, which DDP puts in front, may be a name of the model's own: `named_as` knows.

    Example:
        >>> plain_name("blocks.0._orig_mod.weight")
        'blocks.0.weight'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def named_as(expected: Iterable[str], state: Mapping[str, Value]) -> dict[str, Value]:
    """A state dict under the names that a model has, whichever of the two was wrapped.

    Args:
        expected: Names in the model's own state dict.
        state: Values by name.

    Returns:
        The values by the model's names; what it does not have keeps its name.

    Example:
        >>> named_as(["weight"], {"module._orig_mod.weight": 1, "bias": 2})
        {'weight': 1, 'bias': 2}
    """
    known = {plain_name(name): name for name in expected}

    def name_of(found: str) -> str:
        plain = plain_name(found)
        return known.get(plain) or known.get(plain.removeprefix("module.")) or found

    return {name_of(name): value for name, value in state.items()}
