"""Arms: the ranked latents and their controls, each of which has the same grid."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lightsae.interventions.finding.latent_ranking import LatentRanking
from lightsae.interventions.hooks.attach import attach
from lightsae.interventions.hooks.edits import Add, Clamp, Edit, Scale
from lightsae.interventions.steering.options import SteeringOptions
from lightsae.interventions.steering.task import SteeringTask
from lightsae.sae import SparseAutoencoder, TopK

Cell = tuple[float, int]


class Arm(ABC):
    """A way to steer that has a strength and a number of latents."""

    name: str

    @abstractmethod
    def saes(self, task: SteeringTask) -> Mapping[str, SparseAutoencoder]:
        """What is attached at each layer."""

    @abstractmethod
    def edit(self, layer: str, cell: Cell, options: SteeringOptions) -> Edit:
        """The edit of a layer in a cell."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What the arm is made of, by `NAME/layer`."""

    def error_term(self, options: SteeringOptions) -> bool:
        """Whether what is not reconstructed is kept."""
        return options.error_term


@dataclass(frozen=True)
class LatentArm(Arm):
    """Latents of the task's autoencoders.

    Attributes:
        name: Of the arm.
        rankings: Of each layer its latents, best first.
    """

    name: str
    rankings: Mapping[str, LatentRanking]

    def saes(self, task: SteeringTask) -> Mapping[str, SparseAutoencoder]:
        """The task's."""
        return {layer: task.saes[layer] for layer in self.rankings}

    def edit(self, layer: str, cell: Cell, options: SteeringOptions) -> Edit:
        """An edit of the first latents."""
        return steering_edit(self.rankings[layer], options, *cell)

    def told(self, layer: str) -> tuple[list[int], list[int]]:
        """Latents of a layer and their signs, for steering.json."""
        ranking = self.rankings[layer]
        return ranking.latents.tolist(), ranking.signs.int().tolist()

    def tensors(self) -> dict[str, Tensor]:
        """Latents, signs and means."""
        return {
            f"{name}/{layer}": getattr(ranking, name)
            for layer, ranking in self.rankings.items()
            for name in LatentRanking._fields
        }

    @classmethod
    def of_tensors(cls, name: str, tensors: Mapping[str, Tensor]) -> "LatentArm":
        """The arm that `tensors` described."""
        layers = [key.removeprefix("latents/") for key in tensors if key.startswith("latents/")]
        return cls(
            name,
            {
                layer: LatentRanking(
                    *(tensors[f"{part}/{layer}"] for part in LatentRanking._fields)
                )
                for layer in layers
            },
        )


@dataclass(frozen=True)
class RawArm(Arm):
    """A direction of raw activations, added to them without an autoencoder's part in it.

    Attributes:
        name: Of the arm.
        directions: Of each layer a unit vector, [d_in].
        norms: Of each layer how far each cell of the grid moves, [cells].
        cells: The grid.
    """

    name: str
    directions: Mapping[str, Tensor]
    norms: Mapping[str, Tensor]
    cells: list[Cell]

    def saes(self, task: SteeringTask) -> Mapping[str, SparseAutoencoder]:
        """Of each layer an autoencoder whose one latent never fires and decodes to the direction.

        Adding to that latent, with the error term, adds the direction to the activation.
        """
        return {
            layer: _one_latent(direction.to(task.saes[layer].W_dec))
            for layer, direction in self.directions.items()
        }

    def edit(self, layer: str, cell: Cell, options: SteeringOptions) -> Edit:
        """As far along the direction as the ranked latents move in this cell."""
        return Add([0], float(self.norms[layer][self.cells.index(cell)]))

    def tensors(self) -> dict[str, Tensor]:
        """Directions and norms."""
        found = {f"direction/{layer}": each for layer, each in self.directions.items()}
        return found | {f"norms/{layer}": each for layer, each in self.norms.items()}

    def error_term(self, options: SteeringOptions) -> bool:
        """Always: there is nothing that would be reconstructed."""
        return True

    @classmethod
    def of_tensors(cls, name: str, tensors: Mapping[str, Tensor], cells: list[Cell]) -> "RawArm":
        """The arm that `tensors` described."""
        parts: dict[str, dict[str, Tensor]] = {"direction": {}, "norms": {}}
        for key, tensor in tensors.items():
            part, _, layer = key.partition("/")
            parts[part][layer] = tensor
        return cls(name, parts["direction"], parts["norms"], cells)


@contextmanager
def steered(arm: Arm, task: SteeringTask, options: SteeringOptions, cell: Cell) -> Iterator[None]:
    """Steer the task's model by a cell of an arm within a `with` block."""
    saes = arm.saes(task)
    error_term = arm.error_term(options)
    with (
        attach(task.model, saes, error_term=error_term, layouts=task.layouts) as attached,
        ExitStack() as edits,
    ):
        for layer in saes:
            edit = arm.edit(layer, cell, options)
            handle = attached.edit(edit, layer, positions=task.positions, must_touch=False)
            edits.enter_context(handle)
        yield


def _one_latent(direction: Tensor) -> SparseAutoencoder:
    sae = SparseAutoencoder(len(direction), 1, TopK(1), normalization="none").to(direction)
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.W_dec.copy_(direction.unsqueeze(0))
    return sae.eval()


def steering_edit(
    ranking: LatentRanking, options: SteeringOptions, strength: float, count: int
) -> Edit:
    """The edit of one layer in a cell of the grid.

    Args:
        ranking: Latents of the layer.
        options: Kind and direction.
        strength: Of the cell.
        count: How many latents.

    Returns:
        An edit of the first `count` latents; see `SteeringOptions` for the formulas.
    """
    latents = ranking.latents[:count]
    wanted, mean = _wanted(ranking, options, count)
    if options.kind == "additive":
        return Add(latents, strength * wanted * mean)
    if options.kind == "multiplicative":
        return Scale(latents, (1 + strength * wanted).clamp(min=0))
    value = strength * wanted * mean
    return Clamp(latents, low=value, high=value)


def _wanted(ranking: LatentRanking, options: SteeringOptions, count: int) -> tuple[Tensor, Tensor]:
    """+1 for latents of which there shall be more, -1 for less; and their means."""
    toward = 1.0 if options.toward == 1 else -1.0
    return toward * ranking.signs[:count], ranking.mean_active[:count]
