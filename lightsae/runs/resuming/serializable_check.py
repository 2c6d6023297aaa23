"""Whether a state can be read back from a checkpoint: tensors and plain values alone can."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from torch import Tensor, load, save
from torch.utils._pytree import tree_map_only

from lightsae.errors import LightsaeError


def require_readable(content: Mapping[str, Any]) -> None:
    """Refuse what `read_checkpoint` could not read again.

    Args:
        content: A checkpoint or parts of it; tensors are not looked at.

    Raises:
        LightsaeError: Naming the first value that is not plain, and whose callback it is of.

    Example:
        >>> require_readable({"callbacks": {"Best": {"key": lambda: 0}}})
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: callback Best: its key is function, which could not \
be read back: keep tensors and plain values
    """
    light = tree_map_only(Tensor, lambda _: None, dict(content))
    if _can_be_read(light):
        return
    keys, value = _unreadable(light)
    owner = ""
    if keys[0] == "callbacks" and len(keys) > 1:
        owner, keys = f"callback {keys[1]}: ", keys[2:] or ["state"]
    kind = type(value)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    raise LightsaeError(
        f"{owner}its {'.'.join(map(str, keys))} is {name}, which could not be read back: "
        "keep tensors and plain values"
    )


def _can_be_read(value: Any) -> bool:
    """Whether torch writes it and reads it again without running anything."""
    buffer = BytesIO()
    try:
        save(value, buffer)
        buffer.seek(0)
        load(buffer, weights_only=True)
    except Exception:  # pickling raises whatever the value's own methods do
        return False
    return True


def _unreadable(value: Any) -> tuple[list[Any], Any]:
    """The deepest part that cannot be read, and the keys that lead to it."""
    parts: Any = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    for key, part in parts:
        if not _can_be_read(part):
            keys, found = _unreadable(part)
            return [key, *keys], found
    return [], value
