"""An edit of one layer while it is in force: where it acts, and whether it changed anything."""

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interventions.hooks.edits import Edit, Swap
from lightsae.interventions.hooks.forward_passes import UNTOLD, ForwardPass
from lightsae.interventions.hooks.places import Places


class LayerEdit:
    """An edit of one layer while it is in force.

    Args:
        edit: What is done.
        places: Where.
        layer: Name of the layer.
        d_sae: Size of its dictionary.
        must_touch: Some activation has to become another.

    Attributes:
        latents: Which latents, [m], or None for all.
        passes: How often the layer has run.
    """

    def __init__(
        self, edit: Edit, places: Places, layer: str, d_sae: int, must_touch: bool
    ) -> None:
        self.edit, self.places, self.layer = edit, places, layer
        self._must_touch = must_touch
        self.latents = edit.latents(d_sae)
        self.passes = 0
        self._changed: Tensor | None = None
        self._lead: tuple[int, ...] = ()

    @property
    def touched(self) -> bool:
        """Whether any activation became another."""
        return self._changed is not None and bool(self._changed)

    def require_done(self) -> None:
        """Refuse an end at which nothing has happened.

        Raises:
            LightsaeError: If the layer has not run, or no activation that had to became another.
        """
        if not self.passes:
            raise LightsaeError(f"layer {self.layer!r} did not run during its edit")
        if self._must_touch and not self.touched:
            raise LightsaeError(
                f"{self.edit!r} at layer {self.layer!r} changed nothing: the activations are as "
                "it wants them at the places it is about"
            )

    def applied(self, old: Tensor, current: ForwardPass) -> Tensor:
        """New activations, [*lead, m].

        Raises:
            LightsaeError: If the places do not fit the pass, or the edit gives another shape.
        """
        cached = current.cached
        self._require_known_start(cached)
        self._require_same_samples(len(old), current.samples)
        self._require_same_sequence(old.shape[:-1], cached)
        new = self.edit.new(old)
        if new.shape != old.shape:
            raise LightsaeError(
                f"{self.edit!r} gives {list(new.shape)} for {list(old.shape)}, expected the same"
            )
        if not self.places.everywhere:
            rows = self.places.rows(old.shape[:-1], cached, self.layer).to(old.device)
            new = torch.where(rows.reshape(*old.shape[:-1], 1), new, old)
        changed = (new != old).any()
        self._changed = changed if self._changed is None else self._changed | changed
        self.passes += 1
        return new

    def _require_known_start(self, cached: int | None) -> None:
        """Refuse places that are counted from where nobody knows, or from elsewhere."""
        swap = self.edit if isinstance(self.edit, Swap) else None
        if cached == UNTOLD and (swap or self.places.counted):
            raise LightsaeError(
                f"layer {self.layer!r} runs with a cache that does not say how many positions it "
                "holds: generate with use_cache=False, or edit without positions"
            )
        if swap is not None and swap.source.start != (cached or 0):
            raise LightsaeError(
                f"the source of Swap starts at position {swap.source.start}, the pass of layer "
                f"{self.layer!r} at {cached or 0}, where a cache holds those before: expected the "
                "same"
            )

    def _require_same_samples(self, found: int, given: int | None) -> None:
        """Refuse numbers of samples where a layer sees beams, windows or crops of them."""
        if self.places.samples is not None and given is not None and found != given:
            raise LightsaeError(
                f"layer {self.layer!r} sees {found} samples where the model was given {given}, as "
                "with beams, windows or crops: say which rows of the layer with mask"
            )

    def _require_same_sequence(self, lead: tuple[int, ...], cached: int | None) -> None:
        """Refuse numbers of places and samples where a pass may have others under them."""
        before, self._lead = self._lead, tuple(lead)
        if not before or self.places.everywhere:
            return
        counted = self.places.positions is not None and cached is None and len(lead) > 1
        if counted and lead[1] == 1 < before[1]:
            raise LightsaeError(
                f"layer {self.layer!r} ran on {before[1]} positions, then on 1, as with a cache "
                "that cannot be seen: positions would be edited twice; generate with "
                "use_cache=False, or edit without positions"
            )
        if self.places.samples is not None and lead[0] != before[0]:
            raise LightsaeError(
                f"layer {self.layer!r} ran on {before[0]} samples, then on {lead[0]}: samples are "
                "others then; end the edit in between, or give no samples"
            )
