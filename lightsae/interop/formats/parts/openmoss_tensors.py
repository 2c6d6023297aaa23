"""The tensors of OpenMOSS' files, by the names of today."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import number
from lightsae.interop.files.safe_files import file_in, read_safetensors, read_torch
from lightsae.interop.files.shown_values import shown

TENSOR_FILES = ("sae_weights.safetensors", "sae_weights.pt")
MEAN_NORM = "dataset_average_activation_norm."
LOG_THRESHOLD = "activation_function.log_jumprelu_threshold"
# Names of 2025, whose matrices are those of linear layers: [out, in].
_OLD_NAMES = {
    "encoder.weight": "W_E",
    "encoder.bias": "b_E",
    "decoder.weight": "W_D",
    "decoder.bias": "b_D",
    "log_jumprelu_threshold": LOG_THRESHOLD,
}


def tensors_by_name(folder: Path) -> tuple[dict[str, Any], Path]:
    """What the file of weights holds, not yet checked, and the file.

    Args:
        folder: With one of `TENSOR_FILES`; the first one counts.

    Raises:
        LightsaeError: If there is none, or it cannot be read.

    Example:
        >>> tensors_by_name(Path("no_such_folder"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: no_such_folder/sae_weights.safetensors: no such file
    """
    name = next((name for name in TENSOR_FILES if (folder / name).exists()), TENSOR_FILES[0])
    source = file_in(folder, name)
    if source.suffix == ".safetensors":
        found: Any = read_safetensors(source)
    else:
        saved = read_torch(source)
        found = saved.get("sae") if isinstance(saved, Mapping) else None
    if not isinstance(found, Mapping):
        raise LightsaeError(f"{source} has no 'sae' with tensors by name")
    named = {str(name): value for name, value in found.items()}
    return {_OLD_NAMES.get(name, name): _now(name, value) for name, value in named.items()}, source


def _now(name: str, value: Any) -> Any:
    """A tensor as the name of today means it."""
    transposed = name in ("encoder.weight", "decoder.weight") and isinstance(value, Tensor)
    return value.mT.contiguous() if transposed and value.dim() == 2 else value


def mean_norm(found: Mapping[str, Any], source: Path, place: str) -> float:
    """The mean norm of the activations of a place.

    Args:
        found: What the file of weights holds.
        source: The file.
        place: Name of the place.

    Raises:
        LightsaeError: If it is missing or no number above 0.

    Example:
        >>> mean_norm({}, Path("sae_weights.safetensors"), "hook_mlp_out")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: sae_weights.safetensors: \
'dataset_average_activation_norm.hook_mlp_out' is missing or no number above 0
    """
    name = MEAN_NORM + place
    norm = number(found.get(name))
    if norm is None or norm <= 0:
        raise LightsaeError(f"{source}: {shown(name)} is missing or no number above 0")
    return norm
