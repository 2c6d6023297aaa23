"""Calls of a model on a batch, on some of its samples, and what comes out of it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.plural import counted

Inputs = Tensor | Mapping[str, Any]
Output = Callable[[Any], Tensor]
_Item = TypeVar("_Item")


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The model's output.

    Args:
        model: The model.
        inputs: A tensor, or keyword arguments.

    Raises:
        LightsaeError: If they are something else.

    Example:
        >>> import torch
        >>> call(nn.Identity(), torch.ones(2)), call(nn.Identity(), {"input": torch.zeros(1)})
        (tensor([1., 1.]), tensor([0.]))
    """
    if isinstance(inputs, Tensor):
        return model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    raise LightsaeError(
        f"a batch is a {type(inputs).__name__}, expected a tensor or a mapping of keyword arguments"
    )


def samples_of(inputs: Inputs, samples: Tensor, batch: int) -> Inputs:
    """Some samples of a batch, each as often as it is named.

    Args:
        inputs: A tensor with the samples first, or keyword arguments; those of other lengths stay.
        samples: Which, [n] int64.
        batch: How many samples the batch has.

    Raises:
        LightsaeError: If no tensor has so many.

    Example:
        >>> import torch
        >>> samples_of({"x": torch.tensor([5, 6]), "scale": 2}, torch.tensor([1, 1]), 2)
        {'x': tensor([6, 6]), 'scale': 2}
    """
    parts = {"": inputs} if isinstance(inputs, Tensor) else dict(inputs)
    found = {
        name: part[samples.to(part.device)] if _has_samples(part, batch) else part
        for name, part in parts.items()
    }
    if not any(_has_samples(part, batch) for part in parts.values()):
        raise LightsaeError(
            f"the layer saw {counted(batch, 'sample')}, no input has as many along its first axis"
        )
    return found[""] if isinstance(inputs, Tensor) else found


def _has_samples(part: object, batch: int) -> bool:
    return isinstance(part, Tensor) and part.ndim > 0 and len(part) == batch


def scalars(output: Output, result: Any, batch: int) -> Tensor:
    """What a function makes of the model's output, [B], checked.

    Raises:
        LightsaeError: If it is not one number for each sample.
    """
    found = output(result)
    shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if shape != [batch]:
        raise LightsaeError(f"output gives {shape}, expected a number for each sample, [{batch}]")
    return found


def tracked(items: Iterable[_Item], description: str, show: bool) -> Iterator[_Item]:
    """The items, with a progress bar on the standard error while they last."""
    console = Console(stderr=True)
    yield from track(
        items, description, console=console, transient=True,
        disable=not show or not console.is_terminal,
    )  # fmt: skip
