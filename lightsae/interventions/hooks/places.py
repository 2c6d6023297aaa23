"""Where an edit acts: tokens, a mask, samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from lightsae.errors import LightsaeError


@dataclass(frozen=True, eq=False)
class Places:
    """Which rows of a layer an edit changes; all of them where nothing is given.

    Attributes:
        positions: Token positions, counted over a whole sequence where a cache holds its start;
            negative ones count from the end. Of a map its places row by row.
        mask: Where to edit, bool, [B] or [B, places].
        samples: Numbers of samples.

    Example:
        >>> Places(positions=[0, -1]).rows((2, 3), None, "layer")
        tensor([[ True, False,  True],
                [ True, False,  True]])
    """

    positions: Sequence[int] | None = None
    mask: Tensor | None = None
    samples: Sequence[int] | None = None

    def __post_init__(self) -> None:
        mask = self.mask
        if mask is not None and not isinstance(mask, Tensor):
            raise LightsaeError(f"mask is a {type(mask).__name__}, expected a bool tensor")
        if mask is not None and (mask.dtype != torch.bool or mask.ndim not in (1, 2)):
            raise LightsaeError(
                f"mask is {mask.dtype} {list(mask.shape)}, expected bool, [B] or [B, places]"
            )
        for name in ("positions", "samples"):
            given = getattr(self, name)
            if given is not None:
                # The class is frozen.
                object.__setattr__(self, name, _whole_numbers(name, given))

    @property
    def everywhere(self) -> bool:
        """Whether all rows are meant."""
        return self.positions is None and self.mask is None and self.samples is None

    @property
    def counted(self) -> bool:
        """Whether places are counted along a sequence."""
        return self.positions is not None or (self.mask is not None and self.mask.ndim == 2)

    def rows(self, lead: Sequence[int], cached: int | None, layer: str) -> Tensor:
        """The rows that are meant in one pass.

        Args:
            lead: Sizes of samples and places.
            cached: How many places before these a cache holds, or None without a cache.
            layer: Name, for messages.

        Returns:
            bool, [B, places].

        Raises:
            LightsaeError: If they do not fit the pass.
        """
        samples = lead[0]
        places = int(torch.Size(lead[1:]).numel())
        found = torch.ones(samples, places, dtype=torch.bool)
        if self.positions is not None:
            if len(lead) == 1:
                raise LightsaeError(
                    f"layer {layer!r} gives a row for each sample: it has no positions"
                )
            found &= self._at_positions(places, cached, layer)
        if self.samples is not None:
            chosen = torch.zeros(samples, dtype=torch.bool)
            chosen[self._inside(self.samples, samples, f"samples of layer {layer!r}")] = True
            found &= chosen.unsqueeze(1)
        if self.mask is not None:
            found &= self._masked(samples, places, cached, layer)
        return found

    def _at_positions(self, places: int, cached: int | None, layer: str) -> Tensor:
        assert self.positions is not None
        if cached is None:
            wanted = self._inside(self.positions, places, f"positions of layer {layer!r}")
        elif min(self.positions) < 0:
            raise LightsaeError(
                f"position {min(self.positions)} of layer {layer!r} counts from an end that moves "
                "while a cache is in use, so that every new token would be edited: count from the "
                "start, or generate with use_cache=False"
            )
        else:
            # Other positions have been, or are to come.
            wanted = [at - cached for at in self.positions if cached <= at < cached + places]
        found = torch.zeros(places, dtype=torch.bool)
        found[wanted] = True
        return found

    def _masked(self, samples: int, places: int, cached: int | None, layer: str) -> Tensor:
        assert self.mask is not None
        mask, before = self.mask.cpu(), max(cached or 0, 0)
        if mask.ndim == 1:
            mask = mask.unsqueeze(1).expand(-1, before + places)
        if len(mask) != samples or (not before and mask.shape[1] != places):
            raise LightsaeError(
                f"mask is {list(self.mask.shape)}, layer {layer!r} has {samples} samples of "
                f"{places} places: expected [{samples}] or [{samples}, {places}]"
            )
        # What a cache adds to the sequence that the mask was made for is not meant.
        found = torch.zeros(samples, places, dtype=torch.bool)
        inside = mask[:, before : before + places]
        found[:, : inside.shape[1]] = inside
        return found

    @staticmethod
    def _inside(numbers: Sequence[int], size: int, what: str) -> list[int]:
        outside = [number for number in numbers if not -size <= number < size]
        if outside:
            raise LightsaeError(f"{what} must lie in [{-size}, {size}), got {outside[0]}")
        return list(numbers)


def _whole_numbers(name: str, given: Sequence[int]) -> list[int]:
    """Numbers of a sequence, array or tensor, refused where they are none."""
    numbers = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(numbers, Sequence) or isinstance(numbers, str):
        raise LightsaeError(f"{name} is {given!r}, expected a list of whole numbers")
    if not numbers:
        raise LightsaeError(f"{name} is empty, expected one or more")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, Integral):
            raise LightsaeError(f"{name} holds {number!r}, expected whole numbers")
    return [int(number) for number in numbers]
