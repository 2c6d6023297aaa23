"""The outputs of a frozen model's layers, images first and features last."""

import torch
from torch import Tensor

from lightsae.activations.extraction.models.layer_tap import Inputs, LayerTap
from lightsae.activations.extraction.models.layout_probing import KnownLayer, find_layouts
from lightsae.activations.extraction.models.layouts import arranged, check_layout
from lightsae.activations.extraction.option_types import Compute
from lightsae.errors import LightsaeError


class LayerOutputs:
    """Runs a model, and brings what its layers give into one order of axes.

    A few images of the first batch and one less are run before it, to see which axis is theirs.

    Args:
        tap: The model and the layers.
        compute: Dtype of the forward pass.
        layout: The layout of every layer, a letter for each axis; by default it is found.

    Raises:
        LightsaeError: If `layout` is none.

    Example:
        >>> outputs = LayerOutputs(LayerTap(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 2)), "0"))
        >>> outputs(torch.zeros(5, 3, 4, 4))[0].shape
        torch.Size([5, 3, 3, 8])
    """

    def __init__(
        self, tap: LayerTap, compute: Compute = "float32", layout: str | None = None
    ) -> None:
        if layout is not None:
            check_layout(layout)
        self.tap, self._compute, self._declared = tap, compute, layout
        self._known: list[KnownLayer] = []

    @property
    def notes(self) -> list[str]:
        """What a user may not expect of the layers, once they have run."""
        return [note for layer in self._known for note in layer.notes]

    @property
    def prefix_tokens(self) -> list[int | None]:
        """For each layer that ran, 0 if it is before class and register tokens come, or None."""
        return [layer.prefix_tokens for layer in self._known]

    def __call__(self, inputs: Inputs) -> list[Tensor]:
        """Run a batch.

        Args:
            inputs: `[B, ...]`, or the keyword arguments of the model, on its device.

        Returns:
            For each layer `[B, d]`, `[B, T, d]` or of a map `[B, H, W, d]`.

        Raises:
            LightsaeError: If the model cannot take the batch, draws at random, or an output is not
                as many images as came.
        """
        some = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
        reduced = self._compute != "float32"
        dtype = getattr(torch, self._compute) if reduced else None
        with torch.autocast(some.device.type, dtype=dtype, enabled=reduced):
            if not self._known:
                self._known = find_layouts(self.tap, inputs, self._declared, self._compute)
            outputs = self.tap.all(inputs)
        layouts = [known.layout for known in self._known]
        for layer, output, layout in zip(self.tap.layers, outputs, layouts, strict=True):
            if output.ndim != len(layout) or output.shape[layout.index("B")] != len(some):
                raise LightsaeError(
                    f"layer {layer!r} gives {list(output.shape)} for {len(some)} images, expected "
                    f"{layout} with B = {len(some)}"
                )
        return [arranged(*pair) for pair in zip(outputs, layouts, strict=True)]
