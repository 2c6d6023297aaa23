"""What an arm does to the activations of a model with tokens and several layers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightsae.interventions import LatentRanking, attach
from lightsae.interventions.steering import (
    Examples,
    GuardLimit,
    Measured,
    SteeringOptions,
    SteeringTask,
    steer,
)
from lightsae.interventions.steering.arms import RawArm, steered
from lightsae.interventions.steering.controls import make_arms
from lightsae.interventions.steering.task import Split
from lightsae.sae import SparseAutoencoder, TopK

D, LAYERS = 12, ["0", "2"]


class Tokens(SteeringTask):
    """Two layers over [samples, 5 tokens, 12]."""

    target, target_falls = "mean", True

    def __init__(self, normalization: str = "variance") -> None:
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, D)).eval()
        self.saes = {
            layer: SparseAutoencoder(D, 40, TopK(4), normalization=normalization)
            for layer in LAYERS
        }
        self.guards = {}
        self.x = torch.randn(60, 5, D, generator=generator)

    def examples(self) -> Examples:
        return Examples(self.x.split(16), (self.x.mean(dim=(1, 2)) > 0).long().numpy())

    def measure(self, split: Split) -> dict[str, Measured]:
        return {"mean": Measured(self.model(self.x).mean(dim=(1, 2)), torch.ones(60))}


def outputs(task: Tokens, arm, options: SteeringOptions, cell: tuple[float, int]) -> list[Tensor]:
    """What the two layers give."""
    seen: list[Tensor] = []
    with steered(arm, task, options, cell), torch.no_grad():
        handles = [
            task.model.get_submodule(layer).register_forward_hook(
                lambda *call: seen.append(call[2])
            )
            for layer in LAYERS
        ]
        task.model(task.x)
        for handle in handles:
            handle.remove()
    return seen


@pytest.mark.parametrize("normalization", ["variance", "layer_norm"])
def test_the_raw_direction_is_as_long_as_the_step_of_the_latents(normalization: str) -> None:
    task = Tokens(normalization)
    task.pooling = "none"
    task.examples = lambda: Examples(task.x.split(16), np.arange(300) % 2)
    options = SteeringOptions([0.5, 2.0], [1, 3], layers=["0"], controls=["raw"])
    ranked, raw = make_arms(task, ["0"], options)
    assert isinstance(raw, RawArm)
    with torch.no_grad():
        bare = task.model[0](task.x)
    for cell in options.cells:
        moved, _ = outputs(task, ranked, options, cell)
        shifted, _ = outputs(task, raw, options, cell)
        length = (moved - bare).norm(dim=-1).mean()
        raw_length = (shifted - bare).norm(dim=-1)
        assert raw_length.std() < 1e-5
        assert float(raw_length.mean()) == pytest.approx(float(length), rel=1e-4)
        one = torch.nn.functional.normalize((shifted - bare)[0, 0], dim=0)
        torch.testing.assert_close(one, raw.directions["0"], atol=1e-5, rtol=0)


def test_only_the_positions_of_the_task_are_edited() -> None:
    task = Tokens()
    task.positions = [1, -1]
    options = SteeringOptions([2.0], [2], controls=["raw"])
    bare = task.model[0](task.x).detach()
    for arm in make_arms(task, LAYERS, options):
        first, _ = outputs(task, arm, options, (2.0, 2))
        assert (
            (first != bare).any(dim=-1) == torch.tensor([False, True, False, False, True])
        ).all()


def test_without_the_error_term_the_reconstruction_is_steered() -> None:
    task = Tokens()
    options = SteeringOptions([0.0], [1], error_term=False, controls=["raw"])
    ranked, raw = make_arms(task, LAYERS, options)
    first, _ = outputs(task, ranked, options, (0.0, 1))
    with torch.no_grad():
        bare = task.model[0](task.x)
        x_hat = task.saes["0"](bare.reshape(-1, D)).reshape(bare.shape)
    torch.testing.assert_close(first, x_hat, atol=1e-5, rtol=1e-5)
    assert torch.equal(outputs(task, raw, options, (0.0, 1))[0], bare)


def test_layers_are_steered_alone_or_together(tmp_path: Path) -> None:
    options = SteeringOptions([3.0], [2], controls=[], bootstrap=100)
    values = {}
    for layers in (["0"], ["2"], LAYERS):
        chosen = SteeringOptions([3.0], [2], layers=layers, controls=[], bootstrap=100)
        found = steer(Tokens(), tmp_path / "-".join(layers), chosen)
        assert list(found.latents) == layers
        values[tuple(layers)] = found.points_of("ranked latents", "choice")[0].metrics["mean"].value
    every = steer(Tokens(), tmp_path / "all", options)
    assert every.points_of("ranked latents", "choice")[0].metrics["mean"].value == values["0", "2"]
    assert len(set(values.values())) == 3


def test_a_ranking_of_the_task_is_taken_with_its_signs(tmp_path: Path) -> None:
    task = Tokens()
    with attach(task.model, task.saes) as attached, attached.record() as recording:
        task.model(task.x)
    latent = int(recording["2"].code.indices.mode().values[0])
    ranking = LatentRanking(torch.tensor([latent]), torch.tensor([-1.0]), torch.tensor([0.75]))
    task.ranking = lambda features, labels: ranking
    options = SteeringOptions([2.0], [1], layers=["2"], controls=[])
    (arm,) = make_arms(task, ["2"], options)
    bare = task.model(task.x).detach()
    _, second = outputs(task, arm, options, (2.0, 1))
    sae = task.saes["2"]
    # Toward label 0 of a latent with sign -1 there shall be more.
    step = (2.0 * 0.75 * sae.scale * sae.W_dec[latent]).detach()
    torch.testing.assert_close(second - bare, step.expand_as(bare), atol=1e-5, rtol=0)


def test_a_limit_counts_both_ways() -> None:
    limit = GuardLimit(rise=0.2, fall=0.1)
    assert [limit.damage(change) for change in (0.1, -0.1, 0.0)] == [0.5, 1.0, 0.0]
