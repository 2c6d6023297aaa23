"""A task's metrics under the hooks of a point, checked."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interventions.hooks.attach import attach
from lightsae.interventions.steering.arms import Arm, Cell, steered
from lightsae.interventions.steering.options import SteeringOptions
from lightsae.interventions.steering.task import Measured, Split, SteeringTask

Measurement = Mapping[str, Measured]


def measured_bare(task: SteeringTask, split: Split) -> Measurement:
    """The metrics of the model as it is."""
    with torch.no_grad():
        return checked(task.measure(split), task, f"baseline on {split}")


def measured_reconstruction(task: SteeringTask, layers: list[str], split: Split) -> Measurement:
    """The metrics where the reconstructions of layers take the place of their activations."""
    saes = {layer: task.saes[layer] for layer in layers}
    with attach(task.model, saes, error_term=False, layouts=task.layouts), torch.no_grad():
        return checked(task.measure(split), task, f"reconstruction only on {split}")


def measured_cell(
    arm: Arm, task: SteeringTask, options: SteeringOptions, cell: Cell, split: Split
) -> Measurement:
    """The metrics in a cell of an arm."""
    with steered(arm, task, options, cell), torch.no_grad():
        where = f"{arm.name}, strength {cell[0]:g}, {cell[1]} latents, on {split}"
        return checked(task.measure(split), task, where)


def checked(measurement: Measurement, task: SteeringTask, where: str) -> Measurement:
    """A measurement that has what it must.

    Args:
        measurement: As the task gave it.
        task: The task.
        where: Which point, for messages.

    Raises:
        LightsaeError: If the target or a guard is missing, or amounts and counts are not finite
            numbers of the same samples.
    """
    for name in (task.target, *task.guards):
        if name not in measurement:
            raise LightsaeError(
                f"measure gives no {name!r} ({where}), there are {', '.join(measurement)}"
            )
    for name, each in measurement.items():
        amounts, counts = each
        if not isinstance(amounts, Tensor) or not isinstance(counts, Tensor):
            raise LightsaeError(f"metric {name!r} ({where}): amounts and counts must be tensors")
        if amounts.ndim != 1 or amounts.shape != counts.shape or not len(amounts):
            raise LightsaeError(
                f"metric {name!r} ({where}): amounts are {list(amounts.shape)}, counts "
                f"{list(counts.shape)}, expected [n] both, n at least 1"
            )
        wrong = ~(amounts.isfinite() & counts.isfinite() & (counts >= 0))
        if wrong.any():
            place = int(wrong.nonzero()[0])
            raise LightsaeError(
                f"metric {name!r} ({where}): sample {place} has amount {float(amounts[place])} of "
                f"{float(counts[place])}, expected finite numbers, counts at least 0"
            )
        if not counts.sum() > 0:
            raise LightsaeError(f"metric {name!r} ({where}): all counts are 0")
    return measurement


def require_same_samples(found: Measurement, baseline: Measurement, where: str) -> None:
    """Refuse a point of other metrics or numbers of samples than the baseline has.

    Args:
        found: The point.
        baseline: On the same split.
        where: Which point, for messages.

    Raises:
        LightsaeError: If it has others.
    """
    sizes, wanted = ({name: len(each.amounts) for name, each in one.items()}
                     for one in (found, baseline))  # fmt: skip
    if sizes != wanted:
        raise LightsaeError(
            f"measure ({where}) gives samples {sizes}, without steering {wanted}: expected the same"
        )
