"""The base of all metrics here: sums of float64, counts and indices of int64."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric


class ExactMetric(Metric):
    """A metric whose state keeps its dtypes wherever it, or a module it is in, is moved."""

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        """Move the state, but not to another dtype, neither by `to` nor by `set_dtype`."""

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, exclude_state)
