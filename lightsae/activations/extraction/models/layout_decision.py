"""Deciding the layout of a layer's output from its shapes and from known layers."""

from typing import NamedTuple

from torch import Tensor, nn

from lightsae.activations.extraction.models.layout_hints import LAST, SECOND, Evidence
from lightsae.errors import LightsaeError

_ADVICE = "say which axis is which with --layout"
# Class and register tokens of a model that does not say how many it has.
_MOST_PREFIX_TOKENS = 8


class SeenOutput(NamedTuple):
    """The output of a layer for a few images and without the last of them, and what else is known.

    Attributes:
        layer: Its name.
        images: How many images.
        output: For all of them.
        other: Without the last.
        evidence: What the layers before it tell.
        size: Height and width of the images, if there are some.
    """

    layer: str
    images: int
    output: Tensor
    other: Tensor
    evidence: Evidence
    size: tuple[int, int] | None

    @property
    def shapes(self) -> str:
        """Both shapes, for messages."""
        return (
            f"layer {self.layer!r} gives {list(self.output.shape)} for {self.images} images and "
            f"{list(self.other.shape)} for {self.images - 1}"
        )

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
        if (more, fewer) != (self.images, self.images - 1):
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
            module: The model, whose `output_fmt` is NHWC if its maps have their channels last, and
                `num_prefix_tokens` is how many class and register tokens it has.

        Raises:
            LightsaeError: If it cannot be told.
        """
        axis, axes = self.axis(), self.output.ndim
        features = self.evidence.features
        if axis == 1 and axes == 3:
            return "TBD"
        if axis == 0 and axes == 2:
            return "BD"
        if axis == 0 and axes == 3:
            return self._sequence_layout(getattr(module, "num_prefix_tokens", None))
        if axis == 0 and axes == 4:
            return self._map_layout(str(getattr(module, "output_fmt", "NCHW")), features)
        if axes == 1:
            raise LightsaeError(f"{self.shapes}: expected features of each image")
        raise LightsaeError(f"{self.shapes}: {_ADVICE}, a letter for each")

    def _sequence_layout(self, prefix: int | None) -> str:
        """Features second or last, unless these are as many as there are places of a map.

        A linear layer does not tell: it may mix tokens, whose axis is then the last.
        """
        if self.evidence.features == SECOND:
            return "BDT"
        before = range(_MOST_PREFIX_TOKENS + 1) if prefix is None else (0, prefix)
        tokens = {places + count for places in self.evidence.places for count in before}
        _, second, last = self.output.shape
        if last in tokens and second not in tokens:
            raise LightsaeError(
                f"{self.shapes}, whose last axis may be the places of a map: {_ADVICE}, such as "
                "BDT or BTD"
            )
        return "BTD"

    def _map_layout(self, said: str, features: int | None) -> str:
        """Channels second or last, if it is a map at all."""
        if features == SECOND:
            return "BCHW"
        layout = "BHWC" if features == LAST or (features is None and "NHWC" in said) else "BCHW"
        if self.evidence.in_sequence or not self._has_proportions(layout) or self._sums_to_one():
            raise LightsaeError(
                f"{self.shapes}, which is not known to be a map: {_ADVICE}, such as BCHW, BHWC, or "
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
