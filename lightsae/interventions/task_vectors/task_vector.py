"""`TaskVector`: what fine-tuning changed, by layer, and its injection into a model."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interventions.task_vectors.checkpoint import (
    Checkpoint,
    all_parameters,
    of_one_name,
    read_weights,
    require_same_names,
    without_wrappers,
)

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class TaskVector:
    """Fine-tuned less base weights (arXiv 2212.04089), grouped by layer (arXiv 2605.28649).

    Attributes:
        changes: Of each weight its change, float32, or float64 where the weight is; in the names
            of a model that nothing wraps.
        layers: Of each layer the names of its weights. What lies outside them belongs to the
            vector, but to no layer.

    Example:
        >>> base, tuned = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
        >>> vector = TaskVector.between(base, tuned, ["0", "1"])
        >>> with vector.injected(base, layers=["1"]):
        ...     bool((base[1].weight - tuned[1].weight).abs().max() < 1e-6)
        True
        >>> bool((base[1].weight == tuned[1].weight).all())
        False
    """

    changes: Mapping[str, Tensor]
    layers: Mapping[str, tuple[str, ...]]

    @classmethod
    def between(cls, base: Checkpoint, tuned: Checkpoint, layers: Sequence[str]) -> Self:
        """The vector from one checkpoint to another.

        Buffers of modules and tensors of integers are left alone; a state dict or file does not say
        which of its tensors are buffers, but those of the model are not touched on injection.

        Args:
            base: A module, a state dict, or the path of a safetensors file.
            tuned: The same model fine-tuned, in any of these.
            layers: Names of submodules, such as "blocks.3"; none within another.

        Raises:
            LightsaeError: If a checkpoint cannot be read, the two have different weights, or a
                layer has none.
        """
        old, new = of_one_name(read_weights(base, "base"), read_weights(tuned, "tuned"))
        require_same_names(old, new)
        changes = {
            name: _wide(new.tensors[name].to(tensor.device)) - _wide(tensor)
            for name, tensor in old.tensors.items()
            if name in new.tensors
        }
        for name, change in changes.items():
            if not change.isfinite().all():
                raise LightsaeError(f"{name} holds NaN or inf, expected finite weights")
        return cls(changes, _grouped(changes, layers))

    def energy(self, layers: Sequence[str] | None = None) -> float:
        """Squared Frobenius norm of the changes.

        Args:
            layers: Of these; by default of the whole vector.

        Raises:
            LightsaeError: If there is no such layer.
        """
        return sum(float(self.changes[n].double().square().sum()) for n in self.names(layers))

    def names(self, layers: Sequence[str] | None = None) -> list[str]:
        """Weights of some layers; of the whole vector by default.

        Raises:
            LightsaeError: If there is no such layer.
        """
        if layers is None:
            return list(self.changes)
        _require_list(layers)
        for layer in layers:
            if layer not in self.layers:
                known = ", ".join(self.layers)
                raise LightsaeError(f"layer {layer} is not in the task vector, which has: {known}")
        return [name for layer in dict.fromkeys(layers) for name in self.layers[layer]]

    def with_changes(self, changes: Mapping[str, Tensor]) -> Self:
        """The vector with other changes of some weights, and none of the others.

        Args:
            changes: By name, in the shapes of the vector's.
        """
        kept = {
            layer: tuple(name for name in names if name in changes)
            for layer, names in self.layers.items()
        }
        return replace(self, changes=dict(changes), layers=kept)

    @contextmanager
    def injected(
        self, model: nn.Module, layers: Sequence[str] | None = None, *, scale: float = 1.0
    ) -> Iterator[None]:
        """Add the vector to a model's parameters while a block runs; then they are what they were.

        Their bits come back whatever happens in the block. Buffers stay. Sums are rounded once to
        the dtype of the parameter.

        Args:
            model: The base model, wrapped or not.
            layers: Only these; by default the whole vector.
            scale: Factor of the vector.

        Raises:
            LightsaeError: If the model lacks a weight of the vector or has it in another shape, two
                different changes are of one tied weight, there is no such layer, or the scale is
                not finite.
        """
        if not math.isfinite(scale):
            raise LightsaeError(f"scale is {scale}, expected a finite factor")
        targets = self._targets(model, layers)
        before: list[tuple[nn.Parameter, Tensor]] = []
        try:
            with torch.no_grad():
                for parameter, change in targets:
                    before.append((parameter, parameter.detach().clone()))
                    parameter.copy_(_wide(parameter) + scale * change.to(parameter.device))
            yield
        finally:
            with torch.no_grad():
                for parameter, old in reversed(before):
                    parameter.copy_(old)

    def applied(
        self, model: Model, layers: Sequence[str] | None = None, *, scale: float = 1.0
    ) -> Model:
        """A copy of a model with the vector added for good; see `injected`.

        Args:
            model: The base model.
            layers: Only these; by default the whole vector.
            scale: Factor of the vector.

        Raises:
            LightsaeError: As of `injected`.
        """
        with self.injected(model, layers, scale=scale):
            return copy.deepcopy(model)

    def _targets(
        self, model: nn.Module, layers: Sequence[str] | None
    ) -> list[tuple[nn.Parameter, Tensor]]:
        """Parameters and what is added to them, tied ones once."""
        parameters = all_parameters(model)
        plain = without_wrappers({*model.state_dict(), *parameters})
        found = {plain[name]: parameter for name, parameter in parameters.items()}
        targets: dict[int, tuple[nn.Parameter, Tensor]] = {}
        for name in self.names(layers):
            if name not in found:
                if name in plain.values():
                    continue
                raise LightsaeError(f"the model lacks {name}, which the task vector changes")
            parameter, change = found[name], self.changes[name]
            if parameter.shape != change.shape:
                shapes = f"{list(parameter.shape)}, expected {list(change.shape)}"
                raise LightsaeError(f"{name} is {shapes} as in the task vector")
            _, known = targets.setdefault(id(parameter), (parameter, change))
            if known is not change and not torch.equal(known, change):
                raise LightsaeError(
                    f"{name} is tied to another weight in the model, but the task vector changes "
                    "them differently"
                )
        return list(targets.values())


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _require_list(layers: Sequence[str]) -> None:
    """Refuse one name, whose letters would be taken for names."""
    if isinstance(layers, str):
        raise LightsaeError(f"layers is {layers!r}, expected a list of names, [{layers!r}]")


def _grouped(changes: Mapping[str, Tensor], layers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Of each layer its weights."""
    _require_list(layers)
    if not layers:
        raise LightsaeError("layers is empty, expected names of submodules such as blocks.0")
    found = {layer: tuple(n for n in changes if n.startswith(f"{layer}.")) for layer in layers}
    seen: dict[str, str] = {}
    for layer, names in found.items():
        if not names:
            raise LightsaeError(
                f"layers: {layer} has no weights; the first is {next(iter(changes))}"
            )
        for name in names:
            if name in seen:
                raise LightsaeError(f"layers: {name} lies in {seen[name]} and in {layer}")
            seen[name] = layer
    return found
