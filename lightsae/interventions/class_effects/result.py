"""`ClassEffects`: what ablation and amplification of latents do to class logits, and its file."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.files import write_whole
from lightsae.interventions.finding.false_discovery import adjusted

FORMAT = 1
FILE = "class_effects.safetensors"
EDITS = ("ablation", "amplification")
_METADATA = "class_effects"
_SETTINGS: dict[str, type] = {
    "layer": str, "autoencoder": str, "d_sae": int, "images": int, "amplify": float, "seed": int,
}  # fmt: skip


class LogitChange(NamedTuple):
    """Changes of class logits under one edit of a latent, over the images where it fires.

    Attributes:
        mean: Mean change, [m, classes] float32; NaN where the latent never fires.
        standard_error: Of the mean, [m, classes] float32; NaN with fewer than two images.
        control_mean: Mean of the controls' mean changes, [m, classes] float32.
        control_sd: Their standard deviation, [m, classes] float32; NaN with one control.
        p_value: Share of the latent and its controls whose mean change is as far from 0 as the
            latent's, [m, classes] float32; 1 / (1 + controls) at the least, NaN as `mean`. Not
            corrected for the number of latents and classes: `q_value` is.

    Example:
        >>> change = LogitChange(*torch.tensor([[[0.02, 0.5, 0.04, torch.nan]]] * 5))
        >>> change.q_value
        tensor([[0.0600, 0.5000, 0.0600,    nan]])
    """

    mean: Tensor
    standard_error: Tensor
    control_mean: Tensor
    control_sd: Tensor
    p_value: Tensor

    @property
    def q_value(self) -> Tensor:
        """p_value adjusted by Benjamini and Hochberg over all latents and classes of this edit.

        [m, classes] float32, NaN as `mean`. Below 5% only if enough controls were drawn: of one
        small p-value among many it is 1 / (1 + controls) times their number.

        Raises:
            MissingExtraError: If scipy is not installed.
        """
        p = self.p_value.detach().cpu().double()
        q = torch.from_numpy(adjusted(p.numpy(), p.isfinite().numpy()))
        return q.where(p.isfinite(), torch.nan).float()


@dataclass(frozen=True, eq=False)
class ClassEffects:
    """Effects of latents on the logits of a classifier; see `measure_class_effects`.

    Attributes:
        layer: Name of the layer.
        autoencoder: `weights_hash` of the autoencoder, 16 hexadecimal digits.
        d_sae: Size of its dictionary.
        images: Number of images that were looked at.
        amplify: Factor of the amplification.
        seed: Of the choice of controls.
        latents: Which, [m] int64.
        firing: Images where each fires, [m] int64.
        controls: Of each the random latents that it is compared with, [m, controls] int64.
        ablation: Under zero-ablation.
        amplification: Under amplification.

    Example:
        >>> import tempfile
        >>> change = LogitChange(*torch.ones(5, 1, 3))
        >>> effects = ClassEffects(
        ...     "blocks.3", "00c0ffee00c0ffee", d_sae=8, images=4, amplify=2.0, seed=0,
        ...     latents=torch.tensor([5]), firing=torch.tensor([2]),
        ...     controls=torch.tensor([[1, 2]]), ablation=change, amplification=change,
        ... )
        >>> folder = tempfile.mkdtemp()
        >>> effects.save(folder)
        >>> ClassEffects.load(folder).ablation.mean
        tensor([[1., 1., 1.]])
    """

    layer: str
    autoencoder: str
    d_sae: int
    images: int
    amplify: float
    seed: int
    latents: Tensor
    firing: Tensor
    controls: Tensor
    ablation: LogitChange
    amplification: LogitChange

    def save(self, folder: str | Path) -> None:
        """Write class_effects.safetensors, replaced as a whole, with the settings in its header.

        Args:
            folder: Where, such as that of a run's evaluation; made if it is not there.

        Raises:
            LightsaeError: If it cannot be written.
        """
        settings = {"format": FORMAT} | {name: getattr(self, name) for name in _SETTINGS}
        tensors = {
            name: tensor.detach().cpu().clone().contiguous()
            for name, tensor in self._tensors().items()
        }
        content = serialize_tensors(tensors, {_METADATA: json.dumps(settings)})
        write_whole(Path(folder) / FILE, content)

    def _tensors(self) -> dict[str, Tensor]:
        found = {"latents": self.latents, "firing": self.firing, "controls": self.controls}
        for edit in EDITS:
            change: LogitChange = getattr(self, edit)
            found |= {f"{edit}.{name}": tensor for name, tensor in change._asdict().items()}
        return found

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote; nothing in the file is run.

        Args:
            folder: The folder with the file.

        Raises:
            LightsaeError: If the file is missing or malformed.

        Example:
            >>> ClassEffects.load("nowhere")
            Traceback (most recent call last):
            ...
            lightsae.errors.LightsaeError: nowhere/class_effects.safetensors is not there; \
measure_class_effects(...).save writes it
        """
        path = Path(folder) / FILE
        if not path.exists():
            raise LightsaeError(f"{path} is not there; measure_class_effects(...).save writes it")
        try:
            with safe_open(path, framework="pt") as file:
                settings = _settings((file.metadata() or {}).get(_METADATA, ""), path)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise LightsaeError(f"{path} cannot be read as safetensors: {error}") from error
        _require_shapes(tensors, settings["d_sae"], path)
        ablation, amplification = (
            LogitChange(*(tensors.pop(f"{edit}.{name}") for name in LogitChange._fields))
            for edit in EDITS
        )
        return cls(**settings, **tensors, ablation=ablation, amplification=amplification)


def _settings(text: str, path: Path) -> dict[str, Any]:
    """The settings in a file's header, checked."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LightsaeError(f"{path}: its header has no JSON of class effects") from error
    if not isinstance(settings, dict) or settings.pop("format", None) != FORMAT:
        raise LightsaeError(f"{path} has no class effects of format {FORMAT}")
    for name, kind in _SETTINGS.items():
        if type(settings.get(name)) is not kind:
            raise LightsaeError(f"{path}: {name} is missing or no {kind.__name__}")
    if set(settings) != set(_SETTINGS) or not math.isfinite(settings["amplify"]):
        raise LightsaeError(f"{path}: settings are {settings}, expected {', '.join(_SETTINGS)}")
    return settings


def _require_shapes(tensors: dict[str, Tensor], d_sae: int, path: Path) -> None:
    """Refuse tensors that are missing, too many, or do not fit together."""
    changes = [f"{edit}.{name}" for edit in EDITS for name in LogitChange._fields]
    numbers = ["latents", "firing", "controls"]
    if sorted(tensors) != sorted([*numbers, *changes]):
        raise LightsaeError(f"{path} holds {', '.join(sorted(tensors))}, not class effects")
    m = tensors["latents"].numel()
    classes = tensors[changes[0]].shape[-1:].numel()
    controls = tensors["controls"].shape[-1:].numel()
    wanted = {
        "latents": [m], "firing": [m], "controls": [m, controls],
    } | {name: [m, classes] for name in changes}  # fmt: skip
    for name, shape in wanted.items():
        dtype = torch.int64 if name in numbers else torch.float32
        tensor = tensors[name]
        if list(tensor.shape) != shape or tensor.dtype != dtype:
            raise LightsaeError(
                f"{path}: {name} is {list(tensor.shape)} {tensor.dtype}, expected {shape} {dtype}"
            )
    for name in ("latents", "controls"):
        if ((tensors[name] < 0) | (tensors[name] >= d_sae)).any():
            raise LightsaeError(f"{path}: {name} must lie in [0, d_sae = {d_sae})")
    for edit in EDITS:
        p = tensors[f"{edit}.p_value"]
        if ((p < 0) | (p > 1)).any():
            raise LightsaeError(f"{path}: {edit}.p_value must lie in [0, 1] or be NaN")
