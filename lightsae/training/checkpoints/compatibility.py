"""What a checkpoint must agree with: the model's tensors and settings, and what resuming needs."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightsae.errors import LightsaeError


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
        >>> import torch
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
    if trained_with not in (selection, _without_module(selection)):
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


def _without_module(selection: Mapping[str, Any]) -> dict[str, Any]:
    """A selection rule as older checkpoints name it, by its class alone."""
    return {**selection, "rule": str(selection.get("rule")).rpartition(".")[2]}


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


def require_same_vocabulary(
    trained_with: Mapping[str, Any] | None, found: Mapping[str, Any] | None
) -> None:
    """Refuse to go on with an anchor to a vocabulary that is not the one trained with.

    Args:
        trained_with: The anchor as a checkpoint describes it, or None.
        found: That of the model.

    Raises:
        LightsaeError: If both have a vocabulary and these differ.

    Example:
        >>> require_same_vocabulary({"digest": "a"}, {"digest": "b", "vocabulary": "words"})
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: was trained with another vocabulary than words (digest \
'a', now 'b')
    """
    was, now = ((each or {}).get("digest") for each in (trained_with, found))
    if found is not None and was and now and was != now:
        name = found.get("vocabulary") or "the one given"
        raise LightsaeError(
            f"was trained with another vocabulary than {name} (digest {was!r}, now {now!r})"
        )
