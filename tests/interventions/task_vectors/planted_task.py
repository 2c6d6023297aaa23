"""A residual network whose task vector is known: one of its layers has the task."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightsae.interventions.task_vectors.experiment import task_vector_experiment
from lightsae.interventions.task_vectors.result import TaskVectorResult
from lightsae.interventions.task_vectors.specificity import Specificity
from lightsae.interventions.task_vectors.task_vector import TaskVector
from lightsae.sae import SparseAutoencoder
from tests.interventions.hooks.models import identity_sae

D, DEPTH, SAMPLES = 8, 20, 30
ANSWER, TASK, OTHER, HARM, NOTHING = 0, 1, 2, 3, 7
TASK_LAYER, HARMFUL_LAYER = 2, 7
PLANTED = {TASK_LAYER: (ANSWER, TASK), HARMFUL_LAYER: (HARM, OTHER)}
LAYERS = [f"blocks.{place}" for place in range(DEPTH)]


class Residual(nn.Module):
    """x + W x, layer after layer; the base changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(D, D, bias=False) for _ in range(DEPTH))
        for block in self.blocks:
            nn.init.zeros_(block.weight)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


def tuned() -> Residual:
    """One layer answers the task, one spoils what is elsewhere, the others do nothing of use."""
    model = Residual()
    with torch.no_grad():
        for place, block in enumerate(model.blocks):
            written, read = PLANTED.get(place, (5, NOTHING))
            block.weight[written, read] = 1.0
    return model


def measure(model: nn.Module) -> Mapping[str, Tensor]:
    task, other = torch.zeros(2, SAMPLES, D)
    task[:, TASK] = other[:, OTHER] = 1.0
    return {"task": model(task)[:, ANSWER] > 0.8, "elsewhere": model(other)[:, HARM] < 0.5}


def experiment(
    chosen: int = TASK_LAYER, latents: Sequence[int] = (4, 6), **options: object
) -> TaskVectorResult:
    """The experiment where specificity names a layer, and some latents in all of them."""
    which = torch.tensor(latents)
    specificity = {
        layer: Specificity(2.0 if place == chosen else 1 - place / DEPTH, which, which.double())
        for place, layer in enumerate(LAYERS)
    }
    saes: dict[str, SparseAutoencoder] = {layer: identity_sae(D) for layer in LAYERS}
    vector = TaskVector.between(Residual(), tuned(), LAYERS)
    given = {"n_layers": 1, "draws": 19, "curve": [1, 3]} | options
    return task_vector_experiment(Residual(), vector, saes, specificity, measure, **given)  # type: ignore[arg-type]
