"""Errors for a model that its library cannot build, or whose arguments are options."""

from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any

from lightsae.error_messages import reason
from lightsae.errors import LightsaeError

# In place of torch's words, which advise to let a file run code.
NO_TENSORS = "expected plain tensors: .safetensors, or what torch.save wrote of a state_dict"


def not_built(name: str, error: Exception, fetches: bool = False) -> LightsaeError:
    """What to raise of a library's error.

    Args:
        name: Of the model.
        error: What the library raised.
        fetches: Whether it was to download weights that a file could have been given for.

    Example:
        >>> not_built("vit_b_16", OSError("no network"), fetches=True)
        LightsaeError('model.name vit_b_16: cannot be built: OSError: no network; model.weights \
FILE and model.pretrained false need no download')
    """
    said = f"its weights: {NO_TENSORS}" if isinstance(error, UnpicklingError) else reason(error)
    offline = isinstance(error, OSError) or "download" in str(error)
    hint = "; model.weights FILE and model.pretrained false need no download"
    return LightsaeError(
        f"model.name {name}: cannot be built: {said}{hint if fetches and offline else ''}"
    )


def refuse_arguments(arguments: Mapping[str, Any], options: Mapping[str, str]) -> None:
    """Refuse arguments that the library is given anyway, from options of their own.

    Args:
        arguments: What the user gave.
        options: Name of the option by that of the argument.

    Raises:
        LightsaeError: Naming the option to give instead.

    Example:
        >>> refuse_arguments({"name": "vit"}, {"name": "model.name"})
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: model.arguments.name is 'vit': give --model.name instead
    """
    for name, option in options.items():
        if name in arguments:
            raise LightsaeError(
                f"model.arguments.{name} is {arguments[name]!r}: give --{option} instead"
            )
