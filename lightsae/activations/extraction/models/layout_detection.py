"""Find the layout of each layer's output from forward passes of two and of three images."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models.layer_tap import Inputs, LayerTap
from lightsae.activations.extraction.models.layout_evidence import LAST, SECOND, Evidence, watch
from lightsae.activations.extraction.models.layouts import arranged
from lightsae.errors import LightsaeError

_MORE, _FEWER = 3, 2
_SAY = "say which axis is which with --layout"


class Layouts(NamedTuple):
    """What is known of the outputs of a tap's layers.

    Attributes:
        of: A letter for each axis of each layer's output.
        notes: What a user may not expect, a line each.
    """

    of: list[str]
    notes: list[str]


def find_layouts(tap: LayerTap, inputs: Inputs, declared: str | None = None) -> Layouts:
    """Run a model on a few images of a batch, and see which axis of each layer grows with them.

    Args:
        tap: The model and the layers.
        inputs: A batch.
        declared: The layout of every layer, if the user says it.

    Raises:
        LightsaeError: If the model draws at random, an output has no axis of images, rows depend on
            other images, or it cannot be told which of the other axes is which.

    Example:
        >>> tap = LayerTap(nn.Sequential(nn.Conv2d(3, 8, 2)), "0")
        >>> find_layouts(tap, torch.zeros(1, 3, 4, 4)).of
        ['BCHW']
    """
    _refuse_batch_statistics(tap.module)
    more, fewer = _images(inputs, _MORE), _images(inputs, _FEWER)
    outputs, again, small = tap.all(more), tap.all(more), tap.all(fewer)
    for layer, first, second in zip(tap.layers, outputs, again, strict=True):
        if not _same(first, second):
            raise LightsaeError(
                f"model: {type(tap.module).__name__} is random: layer {layer!r} gives other values "
                "when the same images come again; turn off what draws (masking, dropout), by "
                "model.arguments or by eval()"
            )
    evidence = watch(tap, fewer)
    found = []
    for layer, output, other in zip(tap.layers, outputs, small, strict=True):
        seen = _Seen(layer, output, other, evidence.get(layer), _size(inputs))
        found.append(seen.declared(declared) if declared else seen.layout(tap.module))
        if _depends_on_others(arranged(output, found[-1]), arranged(other, found[-1])):
            raise LightsaeError(
                f"model: {type(tap.module).__name__} gives other rows of layer {layer!r} for the "
                "same images when another comes with them; expected rows of each image alone"
            )
    runs = {layer: known.runs for layer, known in evidence.items() if known.runs > 1}
    notes = [
        f"layer {layer!r} runs {count} times in a forward pass: the output of the first is taken"
        for layer, count in runs.items()
    ]
    return Layouts(found, notes)


def _refuse_batch_statistics(module: nn.Module) -> None:
    """In training mode they would make each row depend on the other images."""
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training:
            raise LightsaeError(
                f"model: {name or type(module).__name__} is in training mode, rows would depend on "
                "the other images of a batch: call eval()"
            )


def _images(inputs: Inputs, count: int) -> Inputs:
    """So many images of a batch, from the beginning again where it has fewer."""
    if isinstance(inputs, Mapping):
        return {name: _first(tensor, count) for name, tensor in inputs.items()}
    return _first(inputs, count)


def _first(tensor: Tensor, count: int) -> Tensor:
    """So many along the first axis."""
    return tensor[torch.arange(count, device=tensor.device) % len(tensor)]


def _same(first: Tensor, second: Tensor) -> bool:
    """Whether two passes gave the same: on a CPU bit for bit, elsewhere but for rounding."""
    if first.shape != second.shape:
        return False
    if first.device.type != "cpu" and first.is_floating_point():
        return torch.allclose(first.float(), second.float(), rtol=1e-2, atol=1e-3, equal_nan=True)
    raw = (tensor.contiguous().flatten().view(torch.uint8) for tensor in (first, second))
    return torch.equal(*raw)


def _depends_on_others(more: Tensor, fewer: Tensor) -> bool:
    """Whether images that are in both batches have rows that differ by more than rounding."""
    first, second = more[: len(fewer)].float(), fewer.float()
    return bool((first - second).abs().mean() > 0.1 * second.abs().mean())


def _size(inputs: Inputs) -> tuple[int, int] | None:
    """Height and width of the images, if there are some."""
    tensors = inputs.values() if isinstance(inputs, Mapping) else [inputs]
    return next(((t.shape[2], t.shape[3]) for t in tensors if t.ndim == 4), None)


class _Seen(NamedTuple):
    """The output of a layer for three images and for two, and what else is known of it."""

    layer: str
    output: Tensor
    other: Tensor
    evidence: Evidence | None
    size: tuple[int, int] | None

    @property
    def shapes(self) -> str:
        """Both shapes, for messages."""
        more, fewer = list(self.output.shape), list(self.other.shape)
        return f"layer {self.layer!r} gives {more} for {_MORE} images and {fewer} for {_FEWER}"

    def axis(self) -> int:
        """The axis of the images.

        Raises:
            LightsaeError: If there is none.
        """
        if not self.output.is_floating_point():
            raise LightsaeError(f"layer {self.layer!r} gives {self.output.dtype}, expected floats")
        pairs = list(zip(self.output.shape, self.other.shape, strict=False))
        changed = [axis for axis, (more, fewer) in enumerate(pairs) if more != fewer]
        if self.output.ndim != self.other.ndim or len(changed) > 1:
            raise LightsaeError(f"{self.shapes}: expected one axis that is the number of images")
        if not changed or self.output.numel() == 0:
            raise LightsaeError(f"{self.shapes}: expected a row or more for each image")
        (axis,) = changed
        more, fewer = pairs[axis]
        if (more, fewer) != (_MORE, _FEWER):
            raise LightsaeError(
                f"{self.shapes}: images are one axis with windows, heads or tokens; name the block "
                "around it instead"
            )
        return axis

    def declared(self, layout: str) -> str:
        """The layout that the user says, if it can be.

        Raises:
            LightsaeError: If the output has another number of axes, or the images elsewhere.
        """
        axis = self.axis()
        if len(layout) != self.output.ndim or layout[axis] != "B":
            raise LightsaeError(
                f"layout is {layout!r}, but {self.shapes}: expected {self.output.ndim} letters, B "
                f"at {axis + 1}"
            )
        return layout

    def layout(self, module: nn.Module) -> str:
        """The layout by what is known.

        Args:
            module: The model, whose `output_fmt` is NHWC if its maps have their channels last.

        Raises:
            LightsaeError: If it cannot be told.
        """
        axis, axes = self.axis(), self.output.ndim
        features = self.evidence.features if self.evidence is not None else None
        if axis == 1 and axes == 3:
            return "TBD"
        if axis == 0 and axes == 2:
            return "BD"
        if axis == 0 and axes == 3:
            return "BDT" if features == SECOND else "BTD"
        if axis == 0 and axes == 4:
            return self._map_layout(str(getattr(module, "output_fmt", "NCHW")), features)
        if axes == 1:
            raise LightsaeError(f"{self.shapes}: expected features of each image")
        raise LightsaeError(f"{self.shapes}: {_SAY}, a letter for each")

    def _map_layout(self, said: str, features: int | None) -> str:
        """Channels second or last, if it is a map at all."""
        if features == SECOND:
            return "BCHW"
        layout = "BHWC" if features == LAST or (features is None and "NHWC" in said) else "BCHW"
        in_sequence = self.evidence is not None and self.evidence.in_sequence
        if in_sequence or not self._has_proportions(layout) or self._sums_to_one():
            raise LightsaeError(
                f"{self.shapes}, which is not known to be a map: {_SAY}, such as BCHW, BHWC, or "
                "BCTD for heads"
            )
        return layout

    def _has_proportions(self, layout: str) -> bool:
        """Whether height is to width as in the images, if these are known."""
        if self.size is None:
            return True
        height, width = (self.output.shape[layout.index(letter)] for letter in "HW")
        return abs(height * self.size[1] - width * self.size[0]) < max(self.size)

    def _sums_to_one(self) -> bool:
        """Whether these are shares, as attention weights are."""
        sums = self.output.float().sum(-1)
        return bool((self.output >= 0).all() and (sums - 1).abs().max() < 1e-2)
