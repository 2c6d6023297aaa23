"""Forward hooks that capture a layer's output and stop the model after the last one."""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models.named_layers import named_layers, unwrapped
from lightsae.activations.extraction.models.uncompiled import uncompiled
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError

Inputs = Tensor | Mapping[str, Tensor]


class _Reached(Exception):
    """All wanted layers have run: ends the forward pass."""


class LayerTap:
    """Runs a model up to the last of its modules that is wanted.

    Args:
        module: The model; of one in DistributedDataParallel or DataParallel, what these run. What
            is compiled runs as it was written, or hooks would not be seen.
        layers: Names of the modules whose outputs are wanted, as in `named_modules` of a model that
            is not compiled, or one name; the modules of a Sequential may be given as numbers.

    Raises:
        LightsaeError: If there is no such module (the closest names are offered), it is a list of
            modules, or the model is a program of TorchScript.

    Example:
        >>> tap = LayerTap(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), "0")
        >>> tap(torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """

    def __init__(self, module: nn.Module, layers: str | int | Sequence[str | int]) -> None:
        self.module = unwrapped(module)
        self._targets = named_layers(self.module, layers)
        self.layers = list(self._targets)

    def __call__(self, inputs: Inputs) -> Tensor:
        """The output of the only layer; see `all`."""
        (output,) = self.all(inputs)
        return output

    def all(self, inputs: Inputs) -> list[Tensor]:
        """Run the model and return the layers' outputs, of each the first if it has several.

        Args:
            inputs: `[B, ...]`, or the keyword arguments of the model.

        Returns:
            What each layer gave when it ran for the first time, in the order of `layers`.

        Raises:
            LightsaeError: If the model cannot take the batch, or a layer did not run or returned
                no tensor.
        """
        outputs: dict[str, Any] = {}
        handles = [
            target.register_forward_hook(self._keep(layer, outputs))
            for layer, target in self._targets.items()
        ]
        try:
            with uncompiled(self.module) as module, torch.inference_mode():
                module(**inputs) if isinstance(inputs, Mapping) else module(inputs)
        except _Reached:
            pass
        except Exception as error:
            raise LightsaeError(
                f"model: {type(self.module).__name__}, run up to layer {self._names()}, cannot "
                f"take a batch of {_shapes(inputs)}: {reason(error)}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        return [self._tensor(layer, outputs) for layer in self.layers]

    def _names(self) -> str:
        """The layers, for messages."""
        return ", ".join(repr(layer) for layer in self.layers)

    def _keep(self, layer: str, outputs: dict[str, Any]) -> Any:
        """A forward hook that keeps the first output of a layer, and ends the pass with the last.

        What runs on may change an output in place, so all but the last are copied.
        """

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if layer in outputs:
                return
            outputs[layer] = found = first_tensor(output)
            if len(outputs) == len(self._targets):
                raise _Reached
            outputs[layer] = found.clone() if isinstance(found, Tensor) else found

        return keep

    def _tensor(self, layer: str, outputs: dict[str, Any]) -> Tensor:
        """The output of a layer, if it is one."""
        if layer not in outputs:
            raise LightsaeError(f"layer: {layer!r} is not used by the model's forward pass")
        output = outputs[layer]
        if not isinstance(output, Tensor):
            raise LightsaeError(
                f"layer: {layer!r} returns {type(output).__name__}, expected a tensor"
            )
        if output.is_nested or output.layout != torch.strided:
            kind = "nested" if output.is_nested else "sparse"
            raise LightsaeError(f"layer: {layer!r} returns a {kind} tensor, expected a dense one")
        return output


def first_tensor(output: Any) -> Any:
    """The first tensor of several outputs; what they are, where there is none.

    Example:
        >>> first_tensor((None, torch.ones(2)))
        tensor([1., 1.])
    """
    return next(iter(tensor_parts(output).values()), output)


def tensor_parts(output: Any) -> dict[Any, Tensor]:
    """The tensors of a tensor, tuple, list, mapping or dataclass, by where they stand in it.

    Example:
        >>> tensor_parts((None, torch.ones(2)))
        {1: tensor([1., 1.])}
        >>> tensor_parts(torch.ones(2))
        {None: tensor([1., 1.])}
    """
    parts: dict[Any, Any] = {None: output}
    if isinstance(output, Mapping):
        parts = dict(output)
    elif isinstance(output, tuple | list):
        parts = dict(enumerate(output))
    elif is_dataclass(output):
        parts = vars(output)
    return {key: part for key, part in parts.items() if isinstance(part, Tensor)}


def _shapes(inputs: Inputs) -> str:
    """Inputs, for messages."""
    if isinstance(inputs, Tensor):
        return f"images {list(inputs.shape)} {inputs.dtype}"
    return ", ".join(f"{name} {list(t.shape)} {t.dtype}" for name, t in inputs.items())
