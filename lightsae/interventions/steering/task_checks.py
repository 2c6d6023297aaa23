"""Checks of a task before anything is measured."""

from collections.abc import Mapping

from lightsae.errors import LightsaeError
from lightsae.interventions.eval_mode import require_eval, require_eval_sae
from lightsae.interventions.steering.options import SteeringOptions
from lightsae.interventions.steering.task import GuardLimit, SteeringTask


def require_whole(task: SteeringTask) -> None:
    """Refuse a task that lacks an attribute, or whose model is in training mode.

    Args:
        task: The task.

    Raises:
        LightsaeError: Naming what is wrong.
    """
    for name in SteeringTask.__annotations__:
        if not hasattr(task, name):
            raise LightsaeError(f"{type(task).__name__} has no {name}, expected it of a task")
    if not isinstance(task.guards, Mapping):
        raise LightsaeError(f"guards = {task.guards!r}, expected limits by name")
    for name, limit in task.guards.items():
        if not isinstance(limit, GuardLimit):
            raise LightsaeError(f"guards: {name!r} has {limit!r}, expected a GuardLimit")
    if task.target in task.guards:
        raise LightsaeError(f"guards: {task.target!r} is the target")
    require_eval(task.model, "model of the task")


def steered_layers(task: SteeringTask, options: SteeringOptions) -> list[str]:
    """The layers that are steered, whose dictionaries have as many latents as are asked for.

    Args:
        task: The task.
        options: Layers and numbers of latents.

    Raises:
        LightsaeError: If a layer has no autoencoder, one of too few latents or one whose mode
            changes its codes.
    """
    layers = list(task.saes) if options.layers is None else list(options.layers)
    if not layers:
        raise LightsaeError("saes of the task are empty, expected an autoencoder at least")
    for layer in layers:
        if layer not in task.saes:
            raise LightsaeError(
                f"layers: {layer!r} has no autoencoder, there are {', '.join(task.saes)}"
            )
        if max(options.counts) > task.saes[layer].d_sae:
            raise LightsaeError(
                f"counts: {max(options.counts)} is more than d_sae = {task.saes[layer].d_sae} of "
                f"layer {layer!r}"
            )
        require_eval_sae(task.saes[layer], f"autoencoder of layer {layer!r}")
    return layers
