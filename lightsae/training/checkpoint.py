"""Checkpoints that a crash cannot spoil, and that are what they should be when they are read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.files import replacing

_ALWAYS_THERE = {"state_dict": dict, "global_step": int, "pytorch-lightning_version": str}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames; reads tensors and plain values only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint as a whole or not at all."""
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch raises the latter when a write falls short
            reason = getattr(error, "strerror", None) or f"no space left? {error}"
            raise LightsaeError(f"{target} cannot be written: {reason}") from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint without running anything it contains."""
        return read_checkpoint(Path(path), map_location)


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Tensors and plain values of a checkpoint.

    Args:
        path: The file.
        map_location: Where tensors go, as in torch.load.

    Raises:
        LightsaeError: If it is missing, truncated or altered, or holds anything but tensors and
            plain values.

    Example:
        >>> from lightsae.training import read_checkpoint
        >>> read_checkpoint(Path("no.ckpt"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: no.ckpt: no such checkpoint
    """
    if not path.is_file():
        raise LightsaeError(f"{path}: no such checkpoint")
    try:
        _require_intact(path)
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise LightsaeError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(content, dict) or any(
        not isinstance(content.get(key), kind) for key, kind in _ALWAYS_THERE.items()
    ):
        raise LightsaeError(f"{path} is not a checkpoint of a training run")
    return content


def _require_intact(path: Path) -> None:
    """Torch writes a checksum of every part and does not look at it when it reads."""
    with ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise LightsaeError(f"its part {damaged} is damaged")


def require_same_model(
    checkpoint: Mapping[str, Any],
    state: Mapping[str, Tensor],
    selection: Mapping[str, Any],
    normalization: str = "variance",
) -> None:
    """Refuse a checkpoint whose tensors, selection rule or normalisation are not a model's.

    Args:
        checkpoint: What `read_checkpoint` returned.
        state: The model's state dict.
        selection: The model's selection rule by name and settings.
        normalization: What the model does to its inputs.

    Raises:
        LightsaeError: Naming the first tensor, or the rule or kind, that differs.

    Example:
        >>> require_same_model({"state_dict": {}}, {"sae.b_dec": torch.zeros(4)}, {})
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: is a checkpoint of another model: it has no sae.b_dec
    """
    found = checkpoint["state_dict"]
    for name, tensor in state.items():
        if not isinstance(found.get(name), Tensor):
            raise LightsaeError(f"is a checkpoint of another model: it has no {name}")
        if found[name].shape != tensor.shape:
            raise LightsaeError(
                f"is a checkpoint of another model: its {name} is {list(found[name].shape)}, "
                f"expected {list(tensor.shape)}"
            )
    if extra := sorted(found.keys() - state.keys()):
        raise LightsaeError(f"is a checkpoint of another model: {extra[0]} has no place here")
    trained_with = checkpoint.get("selection", selection)
    if trained_with != selection:
        raise LightsaeError(
            f"is a checkpoint of another model: it was trained with selection {trained_with}, "
            f"this one has {dict(selection)}"
        )
    # Checkpoints that are older than the choice have none.
    normalized_by = checkpoint.get("normalization", "variance")
    if normalized_by != normalization:
        raise LightsaeError(
            f"is a checkpoint of another model: it was trained with normalization "
            f"{normalized_by!r}, this one has {normalization!r}"
        )


def require_resumable(checkpoint: Mapping[str, Any], fit_loop: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that holds weights only, or no position in the data.

    Args:
        checkpoint: What `read_checkpoint` returned.
        fit_loop: The state of a loop that has not started.

    Raises:
        LightsaeError: Naming what is missing.

    Example:
        >>> require_resumable({"optimizer_states": [], "lr_schedulers": []}, {})
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: is nothing to go on from: it has no loops
    """
    for key in ("optimizer_states", "lr_schedulers", "loops"):
        if key not in checkpoint:
            raise LightsaeError(f"is nothing to go on from: it has no {key}")
    loops = checkpoint["loops"]
    found = loops.get("fit_loop") if isinstance(loops, dict) else None
    if not isinstance(found, dict):
        raise LightsaeError("is nothing to go on from: it has no loops.fit_loop")
    for key in fit_loop:
        if key not in found:
            raise LightsaeError(f"is nothing to go on from: it has no loops.fit_loop.{key}")
