"""One layer and its autoencoder: what the hook does to each output."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightsae.error_messages import one_line
from lightsae.errors import LightsaeError
from lightsae.interventions.hooks.forward_passes import ForwardPasses
from lightsae.interventions.hooks.layer_code import LayerCode, columns_of
from lightsae.interventions.hooks.layer_edit import LayerEdit
from lightsae.interventions.hooks.layer_output import Arranged, arranged, wanted_tensor
from lightsae.sae import SparseAutoencoder, SparseCode, Transcoder


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
