"""Run a model whose parts are compiled as it was written, so that hooks on any layer are called."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

_WRAPPED = "_orig_mod"


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[nn.Module]:
    """Put what `torch.compile` and `Module.compile` were given in the place of what they made.

    Code that was compiled before a hook came does not call it.

    Args:
        module: A model, compiled as a whole, in parts or not at all; it is as before afterwards.

    Yields:
        The model to run.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> with uncompiled(torch.compile(model)) as found:
        ...     found is model
        True
    """
    with ExitStack() as undo:
        for part in list(module.modules()):
            for name, child in part._modules.items():
                if child is not None and name != _WRAPPED and _WRAPPED in child._modules:
                    undo.callback(part._modules.__setitem__, name, child)
                    part._modules[name] = child._modules[_WRAPPED]
            call: Any = part.__dict__.get("_compiled_call_impl")
            if call is not None:
                undo.callback(part.__dict__.__setitem__, "_compiled_call_impl", call)
                part.__dict__["_compiled_call_impl"] = None
        yield module._modules.get(_WRAPPED) or module
