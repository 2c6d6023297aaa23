"""A copy of a weight in the dtype of its matrix products, written by the optimizer step."""

from typing import Any

import torch
from torch import Tensor


class NarrowCopy:
    """A copy of a parameter in another dtype, valid until the parameter changes.

    Every change in place makes it invalid, but one through `.data` that torch does not count. So do
    copying and pickling: what is made by either holds nothing until it is written.

    Args:
        dtype: Of the copy.

    Example:
        >>> W = torch.nn.Parameter(torch.ones(2, 3))
        >>> copy = NarrowCopy(torch.bfloat16)
        >>> copy.write(W)
        >>> copy.of(W).dtype
        torch.bfloat16
        >>> with torch.no_grad():
        ...     _ = W.add_(1)
        >>> copy.of(W) is None
        True
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._tensor: Tensor | None = None
        self._source: Tensor | None = None
        self._state: tuple[int, int] | None = None

    def target(self, parameter: Tensor) -> Tensor:
        """Where to write the parameter; call `written` afterwards."""
        tensor = self._tensor
        if tensor is None or (tensor.shape, tensor.device) != (parameter.shape, parameter.device):
            tensor = self._tensor = torch.empty_like(parameter.detach(), dtype=self.dtype)
        return tensor

    def written(self, parameter: Tensor) -> None:
        """Note that the target now holds the parameter as it is."""
        self._source, self._state = parameter, _state(parameter)

    def write(self, parameter: Tensor) -> None:
        """Copy the parameter as it is."""
        self.target(parameter).copy_(parameter.detach())
        self.written(parameter)

    def of(self, parameter: Tensor) -> Tensor | None:
        """The copy, if it is of this parameter as it is now."""
        if torch.compiler.is_compiling() or parameter is not self._source:
            return None
        return self._tensor if self._state == _state(parameter) else None

    def __reduce__(self) -> tuple[Any, ...]:
        return NarrowCopy, (self.dtype,)


def _state(parameter: Tensor) -> tuple[int, int]:
    return parameter.data_ptr(), parameter._version
