"""Finding the batch axis of a layer's output by running the model on batches of two sizes."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models.layer_tap import Inputs, LayerTap
from lightsae.activations.extraction.models.layout_decision import SeenOutput
from lightsae.activations.extraction.models.layout_hints import Evidence, watch
from lightsae.activations.extraction.models.layouts import arranged
from lightsae.activations.extraction.option_types import Compute
from lightsae.errors import LightsaeError


class KnownLayer(NamedTuple):
    """What is known of the outputs of a layer.

    Attributes:
        layout: A letter for each axis.
        prefix_tokens: 0 where class and register tokens are not there yet; None if that is not
            known.
        notes: What a user may not expect, a line each.
    """

    layout: str
    prefix_tokens: int | None
    notes: list[str]


def find_layouts(
    tap: LayerTap, inputs: Inputs, declared: str | None = None, compute: Compute = "float32"
) -> list[KnownLayer]:
    """Run a model on a few images of a batch, and see which axis of each layer grows with them.

    Args:
        tap: The model and the layers.
        inputs: A batch.
        declared: The layout of every layer, if the user says it.
        compute: Dtype of the forward pass, which tells how much is rounding.

    Raises:
        LightsaeError: If the model draws at random, an output has no axis of images, rows depend on
            other images, or it cannot be told which of the other axes is which.

    Example:
        >>> tap = LayerTap(nn.Sequential(nn.Conv2d(3, 8, 2)), "0")
        >>> find_layouts(tap, torch.zeros(1, 3, 4, 4))[0].layout
        'BCHW'
    """
    module = tap.module
    _refuse_batch_statistics(module)
    # A batch may be as large as the memory allows.
    count = min(3, max(2, len(_tensors(inputs)[0])))
    more, fewer = _images(inputs, count), _images(inputs, count - 1)
    outputs, again, small = tap.all(more), tap.all(more), tap.all(fewer)
    for layer, first, second in zip(tap.layers, outputs, again, strict=True):
        if not _same(first, second):
            raise LightsaeError(
                f"model: {type(module).__name__} is random: layer {layer!r} gives other values "
                "when the same images come again; turn off what draws (masking, dropout), by "
                "model.arguments or by eval()"
            )
    evidence = watch(tap, fewer)
    size = _size(inputs)
    return [
        _known(
            SeenOutput(layer, count, output, other, evidence[layer], size),
            module,
            declared,
            compute,
        )
        for layer, output, other in zip(tap.layers, outputs, small, strict=True)
    ]


def _known(
    seen: SeenOutput, module: nn.Module, declared: str | None, compute: Compute
) -> KnownLayer:
    """What shapes and evidence tell of a layer."""
    layout = seen.declared(declared) if declared else seen.layout(module)
    first, second = arranged(seen.output, layout), arranged(seen.other, layout)
    if _depends_on_others(first, second, compute):
        raise LightsaeError(
            f"model: {type(module).__name__} gives other rows of layer {seen.layer!r} for the same "
            "images when another comes with them; expected rows of each image alone"
        )
    notes = []
    if seen.evidence.runs > 1:
        notes.append(
            f"layer {seen.layer!r} runs {seen.evidence.runs} times in a forward pass: the output "
            "of the first is taken"
        )
    if not _before_prefix_tokens(first, seen.evidence, module):
        return KnownLayer(layout, None, notes)
    notes.append(
        f"layer {seen.layer!r} gives a token for each of {first.shape[1]} patches: none is a class "
        "or register token"
    )
    return KnownLayer(layout, 0, notes)


def _before_prefix_tokens(output: Tensor, evidence: Evidence, module: nn.Module) -> bool:
    """Whether a layer has a token for each place of a map that came before, and no other."""
    prefix = getattr(module, "num_prefix_tokens", None)
    if not prefix or output.ndim != 3:
        return False
    return output.shape[1] in evidence.places and output.shape[1] - prefix not in evidence.places


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


def _depends_on_others(more: Tensor, fewer: Tensor, compute: Compute) -> bool:
    """Whether images that are in both batches have rows that differ by more than rounding."""
    # Elsewhere than on a CPU float32 may be multiplied as TF32.
    exact = compute == "float32" and fewer.device.type == "cpu" and fewer.element_size() >= 4
    first, second = more[: len(fewer)].float(), fewer.float()
    return bool((first - second).abs().mean() > (1e-3 if exact else 2e-2) * second.abs().mean())


def _size(inputs: Inputs) -> tuple[int, int] | None:
    """Height and width of the images, if there are some."""
    return next(((t.shape[2], t.shape[3]) for t in _tensors(inputs) if t.ndim == 4), None)


def _tensors(inputs: Inputs) -> list[Tensor]:
    """What a model is given."""
    return list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
