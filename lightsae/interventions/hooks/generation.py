"""How many samples a running `generate` was given: beams multiply those that its passes see."""

import threading
from typing import Any

from torch import Tensor, nn


class GenerateCalls:
    """Stands in for the `generate` of a model, if it has one, until it is removed.

    Args:
        model: The model.

    Attributes:
        samples: Samples that the running call of this thread was given, or None outside of one.

    Example:
        >>> class Model(nn.Module):
        ...     def generate(self, tokens):
        ...         return calls.samples
        >>> import torch
        >>> model = Model()
        >>> calls = GenerateCalls(model)
        >>> model.generate(torch.zeros(3, 5)), calls.samples
        (3, None)
        >>> calls.remove()
        >>> "generate" in vars(model)
        False
    """

    def __init__(self, model: nn.Module) -> None:
        self.samples: int | None = None
        self._model, self._thread = model, threading.get_ident()
        self._inner = getattr(model, "generate", None)
        self._before = vars(model).get("generate")
        if callable(self._inner) and not isinstance(self._inner, nn.Module):
            vars(model)["generate"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Generate."""
        assert self._inner is not None
        if threading.get_ident() != self._thread:
            return self._inner(*args, **kwargs)
        given = (*args, *kwargs.values())
        first = next((part for part in given if isinstance(part, Tensor) and part.ndim > 1), None)
        before, self.samples = self.samples, None if first is None else len(first)
        try:
            return self._inner(*args, **kwargs)
        finally:
            self.samples = before

    def remove(self) -> None:
        """Give the model its own back; others that came later stay."""
        attributes = vars(self._model)
        outer = attributes.get("generate")
        if outer is not self:
            while isinstance(outer, GenerateCalls) and outer._before is not self:
                outer = outer._before
            if isinstance(outer, GenerateCalls):
                outer._inner, outer._before = self._inner, self._before
        elif self._before is not None:
            attributes["generate"] = self._before
        else:
            del attributes["generate"]
