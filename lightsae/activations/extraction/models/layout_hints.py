"""Finding the feature axis of a layer's output from layers of known kinds, with forward hooks."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models.layer_tap import Inputs, LayerTap, first_tensor
from lightsae.activations.extraction.models.uncompiled import uncompiled
from lightsae.module_names import plain_name

_FEATURES_SECOND = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.AvgPool1d, nn.AvgPool2d,
    nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
)  # fmt: skip
SECOND, LAST = 1, -1


@dataclass
class Evidence:
    """What is known of a layer's output.

    Attributes:
        shape: Its shape.
        features: The axis of the features, SECOND or LAST, by the layer itself or those before it
            whose output had this shape; None if there are none or they disagree.
        in_sequence: Whether the layer, or the module that it is a part of, was given `[B, T, D]`.
        places: Numbers of places of the maps that convolutions made before.
        runs: How many times the layer ran in the whole forward pass.
    """

    shape: tuple[int, ...]
    features: int | None
    in_sequence: bool
    places: set[int]
    runs: int = 1


def watch(tap: LayerTap, inputs: Inputs) -> dict[str, Evidence]:
    """Run the whole model once and look at its layers.

    Args:
        tap: The model and the layers, all of which run.
        inputs: A batch.

    Returns:
        What is known of the output of each layer that is a tensor.
    """
    watcher = _Watcher(tap)
    with uncompiled(tap.module) as module:
        handles = watcher.hooks(module)
        try:
            # Behind the layers the model may need what it is not given, as a decoder's inputs.
            with torch.inference_mode(), suppress(Exception):
                module(**inputs) if isinstance(inputs, Mapping) else module(inputs)
        finally:
            for handle in handles:
                handle.remove()
    return watcher.found


class _Watcher:
    """Hooks on every module, and what they saw."""

    def __init__(self, tap: LayerTap) -> None:
        self.found: dict[str, Evidence] = {}
        self._wanted = set(tap.layers)
        self._by_shape: dict[tuple[int, ...], set[int]] = defaultdict(set)
        self._given: dict[str, tuple[int, ...]] = {}
        self._places: set[int] = set()

    def hooks(self, module: nn.Module) -> list[Any]:
        """Register on a model and its parts."""
        handles = []
        for name, part in module.named_modules():
            plain = plain_name(name)
            handles.append(part.register_forward_pre_hook(self._before(plain), with_kwargs=True))
            handles.append(part.register_forward_hook(self._after(plain)))
        return handles

    def _before(self, name: str) -> Callable[..., None]:
        def given(module: nn.Module, args: Any, kwargs: Any) -> None:
            tensor = first_tensor((*args, *kwargs.values()))
            if isinstance(tensor, Tensor):
                self._given[name] = tuple(tensor.shape)

        return given

    def _after(self, name: str) -> Callable[..., None]:
        def gave(module: nn.Module, inputs: Any, output: Any) -> None:
            output = first_tensor(output)
            if not isinstance(output, Tensor):
                return
            shape = tuple(output.shape)
            own = features_axis(module, shape)
            if own is None and not self._by_shape[shape]:
                own = self._kept_axis(name, shape)
            if own is not None:
                self._by_shape[shape].add(own)
            if own == SECOND and len(shape) == 4:
                self._places.add(shape[2] * shape[3])
            if name in self.found:
                self.found[name].runs += 1
            elif name in self._wanted:
                known = self._by_shape[shape] if own is None else {own}
                features = next(iter(known)) if len(known) == 1 else None
                in_sequence, places = self._in_sequence(name), set(self._places)
                self.found[name] = Evidence(shape, features, in_sequence, places)

        return gave

    def _kept_axis(self, name: str, shape: tuple[int, ...]) -> int | None:
        """That of what a module was given, where only the length of the other axis differs.

        So do modules that pad, cut or pool a sequence.
        """
        given = self._given.get(name, ())
        known = self._by_shape[given]
        if len(known) != 1 or len(given) != 3 or len(shape) != 3 or given[0] != shape[0]:
            return None
        (axis,) = known
        other = LAST if axis == SECOND else SECOND
        kept = given[axis] == shape[axis] and shape[other] != shape[axis]
        return axis if kept else None

    def _in_sequence(self, name: str) -> bool:
        """Whether a module, or the closest one around it, was given `[B, T, D]`."""
        if len(self._given.get(name, ())) == 3:
            return True
        while "." in name:
            name = name.rpartition(".")[0]
            if name in self._given:
                return len(self._given[name]) == 3
        return False


def features_axis(module: nn.Module, shape: tuple[int, ...]) -> int | None:
    """The axis of the features in the output of a module of a known kind.

    Example:
        >>> features_axis(nn.Linear(2, 3), (5, 7, 3)), features_axis(nn.Conv1d(2, 3, 1), (5, 3, 7))
        (-1, 1)
    """
    if len(shape) < 3:
        return None
    if isinstance(module, _FEATURES_SECOND):
        return SECOND
    if isinstance(module, nn.Linear | nn.Embedding | nn.MultiheadAttention):
        return LAST
    size = getattr(module, "normalized_shape", None)
    # Of those that normalise channels of a map some are derived from LayerNorm.
    if isinstance(size, tuple) and len(size) == 1 and shape[SECOND] != shape[LAST]:
        return SECOND if shape[SECOND] == size[0] else LAST if shape[LAST] == size[0] else None
    return None
