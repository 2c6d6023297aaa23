"""One layer and its autoencoder: what the hook does to each output."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightsae.error_messages import one_line
from lightsae.errors import LightsaeError
from lightsae.interventions.hooks.edits import Edit, Swap
from lightsae.interventions.hooks.forward_passes import UNTOLD, ForwardPass, ForwardPasses
from lightsae.interventions.hooks.layer_code import LayerCode, columns_of
from lightsae.interventions.hooks.layer_output import Arranged, arranged, wanted_tensor
from lightsae.interventions.hooks.places import Places
from lightsae.sae import SparseAutoencoder, SparseCode, Transcoder


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


class HookedLayer:
    """Runs an autoencoder on what a module of a model gives.

    Args:
        layer: Name of the module.
        module: The module; the input of a `Transcoder` is its first input.
        sae: The autoencoder.
        error_term: Keep what the autoencoder does not explain.
        layout: Of the output, a letter for each axis, or None.
        passes: Passes of the model.

    Attributes:
        edits: In force, in their order.
        recorders: Of each running recording where its codes go.
        runs: How often the layer has run.
        open: Whether the hook is in place.
    """

    def __init__(
        self,
        layer: str,
        module: nn.Module,
        sae: SparseAutoencoder,
        error_term: bool,
        layout: str | None,
        passes: ForwardPasses,
    ) -> None:
        self.layer, self.sae = layer, sae
        self._error_term, self._layout, self._passes = error_term, layout, passes
        self._sequence_first = _sequence_first(module)
        self.edits: list[LayerEdit] = []
        self.recorders: list[LayerRecorder] = []
        self.runs = 0
        self.open = True
        self._handle = module.register_forward_hook(
            torch.compiler.disable(self._hook), with_kwargs=True
        )

    def remove(self) -> None:
        """Take the hook away; code that was compiled with it runs on without it."""
        self.open = False
        self._handle.remove()

    def _hook(self, module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any) -> Any:
        if not self.open or not self._passes.ours:
            return None
        tensor, put_back = wanted_tensor(output, self.sae.d_out, self.layer)
        own = self._arranged(tensor, self.sae.d_out)
        self.runs += 1
        if self._error_term and not self.edits and not self.recorders:
            return None
        y = own.tensor
        x = y if not isinstance(self.sae, Transcoder) else self._input(args, kwargs)
        new = self._run(x, y)
        return None if new is None else put_back(own.back(new))

    def _arranged(self, tensor: Tensor, width: int) -> Arranged:
        """The tensor with samples first and features last, checked."""
        if tensor.device != self.sae.W_enc.device:
            raise LightsaeError(
                f"layer {self.layer!r} gives a tensor on {tensor.device}, its autoencoder is on "
                f"{self.sae.W_enc.device}: move one to the other"
            )
        first = self._sequence_first or (self._layout is None and self._tokens_before(tensor))
        return arranged(tensor, width, self.layer, self._layout, first)

    def _tokens_before(self, tensor: Tensor) -> bool:
        """Whether the batch of the model says that tokens come before samples.

        Raises:
            LightsaeError: If there may be windows of each sample as well.
        """
        batch = self._passes.current.first
        if batch is None or tensor.ndim != 3 or not tensor.shape[0] != batch == tensor.shape[1]:
            return False
        if batch > 1 and tensor.shape[0] % batch == 0:
            raise LightsaeError(
                f"layer {self.layer!r} gives {list(tensor.shape)} in a batch of {batch}: tokens "
                "come first, or there are windows of each sample; say which with "
                f"layouts={{{self.layer!r}: 'TBD'}} or 'BTD'"
            )
        return True

    def _input(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """What the module was given, as a transcoder encodes it."""
        given = (*args, *kwargs.values())
        tensor, _ = wanted_tensor(given, self.sae.d_in, f"{self.layer} (input)")
        return self._arranged(tensor, self.sae.d_in).tensor

    def _run(self, x: Tensor, y: Tensor) -> Tensor | None:
        """The layer's new output, or None if it stays.

        Args:
            x: What is encoded, [*lead, d_in].
            y: The output, [*lead, d_out].
        """
        lead = tuple(x.shape[:-1])
        if tuple(y.shape[:-1]) != lead:
            raise LightsaeError(
                f"layer {self.layer!r} has inputs at places {list(lead)}, outputs at "
                f"{list(y.shape[:-1])}: a transcoder needs the same"
            )
        # The autoencoder works in its own dtype, whatever the model's.
        with torch.autocast(x.device.type, enabled=False):
            rows = x.reshape(-1, x.shape[-1]).to(self.sae.W_enc.dtype)
            code = self._encoded(rows)
            used = self._recorded(code, lead, x)
            change = self._change(used, lead)
            if not self._error_term:
                x_hat: Tensor = self.sae.decode(used, rows)
                x_hat = x_hat if change is None else x_hat + change
                return x_hat.reshape(y.shape).to(y.dtype)
            shift = change
            if used is not code:
                # Zero, and the way on which gradients come to the code.
                zero = self.sae.decode(used, rows) - self.sae.decode(code, rows).detach()
                shift = zero if change is None else zero + change
        return None if shift is None else _shifted(y, shift.reshape(y.shape))

    def _encoded(self, rows: Tensor) -> SparseCode:
        """The code of the rows, or a message that says which layer has none."""
        try:
            return self.sae.encode(rows)
        except ValueError as error:
            raise LightsaeError(
                f"layer {self.layer!r} gives what cannot be encoded: {one_line(str(error))}"
            ) from error

    def _recorded(self, code: SparseCode, lead: tuple[int, ...], x: Tensor) -> SparseCode:
        """Hand the code to the recordings; where one wants gradients, the code is a leaf."""
        if not self.recorders:
            return code
        used = code
        if any(recorder.gradients for recorder in self.recorders):
            for off, block in (
                (torch.is_inference_mode_enabled(), "inference_mode"),
                (not torch.is_grad_enabled(), "no_grad"),
            ):
                if off:
                    raise LightsaeError(
                        f"codes are recorded with gradients, but these are off: leave torch.{block}"
                    )
            values = code.values.detach().clone().requires_grad_()
            used = SparseCode(values, code.indices, code.d_sae, _detached(code.statistics))
        for recorder in () if self._passes.repeats else self.recorders:
            seen = used if recorder.gradients else code.detach()
            kept = x.detach().clone() if recorder.activations else None
            start = max(self._passes.current.cached or 0, 0)
            recorder.passes.append(LayerCode(seen, lead, kept, start))
        return used

    def _change(self, code: SparseCode, lead: tuple[int, ...]) -> Tensor | None:
        """What the edits change in the reconstruction, [rows, d_out]; None without edits."""
        if not self.edits:
            return None
        latents = _union([edit.latents for edit in self.edits], code.values.device)
        old = columns_of(code, latents)
        new, current = old, self._passes.current
        if self._sequence_first or (self._layout or "B")[0] != "B":
            # The inputs of the model may have tokens first, too.
            current = current._replace(samples=None)
        for edit in self.edits:
            if edit.latents is None or latents is None:
                places = None if edit.latents is None else edit.latents.to(old.device)
            else:
                places = torch.searchsorted(latents, edit.latents.to(old.device))
            part = new if places is None else new[:, places]
            found = edit.applied(part.unflatten(0, lead), current).flatten(0, len(lead) - 1)
            new = found if places is None else new.index_copy(1, places, found)
        return self.sae.decoded_change(new - old, latents, code)


class LayerRecorder:
    """Where the codes of one layer go.

    Args:
        activations: Keep what was encoded too.
        gradients: Make codes leaves of the graph, the error term constant.
    """

    def __init__(self, activations: bool, gradients: bool) -> None:
        self.activations, self.gradients = activations, gradients
        self.passes: list[LayerCode] = []


def _shifted(y: Tensor, shift: Tensor) -> Tensor:
    """Sum of both, in which rows whose shift is 0 keep their bits, even those of -0."""
    exact = torch.promote_types(y.dtype, shift.dtype)
    new = (y.to(exact) + shift.to(exact)).to(y.dtype)
    moves = (shift.detach() != 0).any(dim=-1, keepdim=True)
    # Rows that stay have gradients too: less a zero that has those of new.
    return torch.where(moves, new, y.detach() - (new.detach() - new))


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


def _union(latents: list[Tensor | None], device: torch.device) -> Tensor | None:
    """Latents that any edit is about, ascending; None for all."""
    some = [each for each in latents if each is not None]
    return torch.cat(some).unique().to(device) if len(some) == len(latents) else None


def _sequence_first(module: nn.Module) -> bool:
    """Whether a module says that tokens come before samples, as PyTorch's attention may."""
    said = [
        part.batch_first for part in module.modules() if isinstance(part, nn.MultiheadAttention)
    ]
    return bool(said) and not all(said)
