"""`attach`: autoencoders in the forward pass of a model."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from torch import Tensor, nn

from lightsae.activations.extraction.models.name_lookup import closest, layer_names
from lightsae.activations.extraction.models.named_layers import named_layers, unwrapped
from lightsae.errors import LightsaeError
from lightsae.interventions.hooks.edits import Edit
from lightsae.interventions.hooks.forward_passes import ForwardPasses, as_written
from lightsae.interventions.hooks.hooked_layer import HookedLayer, LayerRecorder
from lightsae.interventions.hooks.layer_code import LayerCode
from lightsae.interventions.hooks.layer_edit import LayerEdit
from lightsae.interventions.hooks.layer_output import require_layout
from lightsae.interventions.hooks.places import Places
from lightsae.sae import SparseAutoencoder


class Recording:
    """Codes of the forward passes in a `with` block; see `Attached.record`."""

    def __init__(self, layers: Mapping[str, HookedLayer], activations: bool, gradients: bool):
        self._layers = layers
        self._recorders = {name: LayerRecorder(activations, gradients) for name in layers}

    def __enter__(self) -> Self:
        for name, layer in self._layers.items():
            layer.recorders.append(self._recorders[name])
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for name, layer in self._layers.items():
            layer.recorders.remove(self._recorders[name])
        silent = [name for name, recorder in self._recorders.items() if not recorder.passes]
        if kind is None and silent:
            raise LightsaeError(f"layer {silent[0]!r} did not run while its codes were recorded")

    def __getitem__(self, layer: str | int) -> LayerCode:
        """The code of the only pass.

        Raises:
            LightsaeError: If there is no such layer, or it ran several times.
        """
        found = self.passes(layer)
        if len(found) != 1:
            raise LightsaeError(
                f"layer {layer!r} ran {len(found)} times while its codes were recorded: passes "
                "gives them one by one"
            )
        return found[0]

    def passes(self, layer: str | int) -> list[LayerCode]:
        """The codes of every pass, in order.

        Raises:
            LightsaeError: If there is no such layer.
        """
        (name,) = layer_names(layer)
        if name not in self._recorders:
            raise LightsaeError(
                f"layer: no autoencoder at {name!r}{closest(name, self._recorders)}"
            )
        return self._recorders[name].passes


class EditHandle:
    """An edit in force, until its `with` block ends or it is removed; see `Attached.edit`."""

    def __init__(self, layer: HookedLayer, edit: LayerEdit) -> None:
        self._layer, self._edit = layer, edit
        layer.edits.append(edit)

    @property
    def touched(self) -> bool:
        """Whether any activation became another so far."""
        return self._edit.touched

    def remove(self) -> None:
        """End the edit."""
        if self._edit in self._layer.edits:
            self._layer.edits.remove(self._edit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.remove()
        if kind is None:
            self._edit.require_done()


class Attached:
    """Autoencoders in a model's forward pass, until the `with` block ends or `remove`."""

    def __init__(self, layers: Mapping[str, HookedLayer], cleanup: ExitStack) -> None:
        self._layers, self._cleanup = layers, cleanup

    @property
    def layers(self) -> list[str]:
        """Names of the layers."""
        return list(self._layers)

    def record(self, *, activations: bool = False, gradients: bool = False) -> Recording:
        """Keep the codes of the passes in a `with` block, as they are before edits.

        Args:
            activations: Keep what was encoded too.
            gradients: Make values leaves of the graph that have `grad` after a backward pass; the
                error term is a constant then.

        Returns:
            A context manager; a layer that does not run in its block raises LightsaeError.
        """
        return Recording(self._layers, activations, gradients)

    def edit(
        self,
        edit: Edit,
        layer: str | int | None = None,
        *,
        positions: Sequence[int] | None = None,
        mask: Tensor | None = None,
        samples: Sequence[int] | None = None,
        must_touch: bool = True,
    ) -> EditHandle:
        """Change activations of latents in the passes that follow; edits act in their order.

        Args:
            edit: What is done to which latents.
            layer: Where; may be left out if there is one autoencoder.
            positions: Token positions, counted over the whole sequence where a cache holds its
                start; by default all.
            mask: Where, bool, [B] or [B, places].
            samples: Numbers of samples; by default all.
            must_touch: Raise LightsaeError at the end of the block if nothing became another.

        Returns:
            A handle with `remove`, and a context manager that checks; an edit that is still in
            force where the block of the autoencoders ends is checked there.

        Raises:
            LightsaeError: If there is no such layer or latent, amounts do not fit, or the
                autoencoder has been removed.
        """
        if not isinstance(edit, Edit):
            raise LightsaeError(f"edit is a {type(edit).__name__}, expected an Edit, such as Scale")
        found = self._layer(layer)
        if not found.open:
            raise LightsaeError(f"the autoencoder of layer {found.layer!r} has been removed")
        places = Places(positions, mask, samples)
        made = LayerEdit(edit, places, found.layer, found.sae.d_sae, must_touch)
        return EditHandle(found, made)

    def _layer(self, layer: str | int | None) -> HookedLayer:
        if layer is None:
            if len(self._layers) > 1:
                raise LightsaeError(f"layer is missing: there are {', '.join(self._layers)}")
            (found,) = self._layers.values()
            return found
        (name,) = layer_names(layer)
        if name not in self._layers:
            raise LightsaeError(f"layer: no autoencoder at {name!r}{closest(name, self._layers)}")
        return self._layers[name]

    def remove(self) -> None:
        """Take all hooks away; the model is as before."""
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()
        silent = [name for name, layer in self._layers.items() if not layer.runs]
        if kind is None and silent:
            raise LightsaeError(
                f"layer {silent[0]!r} did not run while its autoencoder was attached"
            )
        if kind is None:
            for edit in (edit for layer in self._layers.values() for edit in layer.edits):
                edit.require_done()


def attach(
    model: nn.Module,
    saes: Mapping[str, SparseAutoencoder],
    *,
    error_term: bool = True,
    layouts: Mapping[str, str] | None = None,
) -> Attached:
    """Run autoencoders in the forward pass of any model, to read and change their codes.

    With the error term a layer's output becomes x + (x_hat_edited - x_hat): without an edit it is
    the same, bit for bit. Without it the output is the reconstruction. A `Transcoder` reads the
    input of the module. Hooks act on passes of the thread that attached; other threads see the bare
    model. An autoencoder works in its own dtype, outside autocast. A model that was compiled before
    runs as it was written meanwhile, with a warning; `torch.compile` inside the block works and
    breaks its graph at each layer.

    Args:
        model: Any module; in DistributedDataParallel too.
        saes: Of each layer, named as in `named_modules`, its autoencoder.
        error_term: Keep what an autoencoder does not explain.
        layouts: Of layers a letter for each axis of their output: B samples, T tokens, H and W of a
            map, D or C features. By default features are last, or second of a map, and samples
            first unless the inputs of the model tell otherwise.

    Returns:
        A context manager that checks that every layer ran, with `record`, `edit` and `remove`.

    Raises:
        LightsaeError: If there is no such layer (the closest names are offered). In a pass: if a
            layer's output has no axis of the autoencoder's width, is on another device, or an edit
            does not fit.

    Example:
        >>> import torch
        >>> from lightsae.interventions import Scale
        >>> from lightsae.sae import TopK
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> sae, x = SparseAutoencoder(d_in=8, d_sae=16, selection=TopK(4)), torch.randn(5, 4)
        >>> bare = model(x)
        >>> with attach(model, {"1": sae}) as attached:
        ...     with attached.record() as recording:
        ...         same = torch.equal(model(x), bare)
        ...     strongest = int(recording["1"].code.indices[0, 0])
        ...     with attached.edit(Scale([strongest], 2.0)):
        ...         changed = not torch.equal(model(x), bare)
        >>> same, changed, recording["1"].to_dense().shape
        (True, True, torch.Size([5, 16]))
    """
    if not isinstance(model, nn.Module):
        raise LightsaeError(f"model is a {type(model).__name__}, expected an nn.Module")
    bare = unwrapped(model)
    require_saes(saes)
    modules = named_layers(bare, list(saes))
    told = {plain: layout for key, layout in (layouts or {}).items() for plain in layer_names(key)}
    for name in told:
        if name not in modules:
            raise LightsaeError(f"layouts: no autoencoder at {name!r}{closest(name, modules)}")
        require_layout(name, told[name])
    cleanup = ExitStack()
    with ExitStack() as undo:
        if undo.enter_context(as_written(model)):
            warnings.warn(
                "the model was compiled before its autoencoders were attached and runs as it was "
                "written until they are removed; compile it inside the block instead",
                stacklevel=2,
            )
        passes = ForwardPasses(bare)
        undo.callback(passes.remove)
        layers = {}
        for (name, module), sae in zip(modules.items(), saes.values(), strict=True):
            layers[name] = HookedLayer(name, module, sae, error_term, told.get(name), passes)
            undo.callback(layers[name].remove)
        cleanup = undo.pop_all()
    return Attached(layers, cleanup)


def require_saes(saes: object) -> None:
    """Refuse what is no mapping of layers to autoencoders, such as the folder of one.

    Raises:
        LightsaeError: If it is something else, or empty.

    Example:
        >>> require_saes({})
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: saes is empty, expected an autoencoder for one layer or more
    """
    if not isinstance(saes, Mapping):
        kind = type(saes).__name__
        raise LightsaeError(
            f"saes is a {kind}, expected layers and their autoencoders: {{layer: sae}}"
        )
    if not saes:
        raise LightsaeError("saes is empty, expected an autoencoder for one layer or more")
    for name, sae in saes.items():
        if not isinstance(sae, SparseAutoencoder):
            kind = type(sae).__name__
            raise LightsaeError(f"saes: {name!r} has a {kind}, expected a SparseAutoencoder")
