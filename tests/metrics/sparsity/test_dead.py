import pytest
import torch
from torchmetrics import MetricCollection

from lightsae.errors import LightsaeError
from lightsae.metrics import DeadLatents, dead_latents


def test_counts_latents_that_never_fire() -> None:
    values = torch.tensor([[3.0, 1.0], [2.0, 1.0]])
    indices = torch.tensor([[4, 0], [4, 2]])
    assert dead_latents(values, indices, d_sae=6) == 3
    assert dead_latents(values, indices, d_sae=6, normalize=True) == 0.5


def test_a_zero_fill_in_is_not_a_firing() -> None:
    assert dead_latents(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 0]]), d_sae=2) == 1


def test_a_latent_is_alive_if_it_fired_in_any_batch() -> None:
    metric = DeadLatents(3)
    metric.update(torch.tensor([[1.0]]), torch.tensor([[0]]))
    metric.update(torch.tensor([[1.0], [1.0]]), torch.tensor([[2], [2]]))
    assert metric.compute() == 1
    assert metric.firings.tolist() == [1, 0, 2]


def test_without_data_all_are_dead() -> None:
    metric = DeadLatents(3)
    metric.update(torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.long))
    assert metric.compute() == 3


def test_count_and_share_share_one_state_in_a_collection() -> None:
    collection = MetricCollection(
        {"dead": DeadLatents(4), "dead_fraction": DeadLatents(4, normalize=True)}
    )
    for latent in (0, 1, 1):
        collection.update(torch.tensor([[1.0]]), torch.tensor([[latent]]))
    assert collection.compute() == {"dead": 2, "dead_fraction": 0.5}
    assert len(collection.compute_groups) == 1


def test_forward_returns_the_batch() -> None:
    metric = DeadLatents(3)
    assert metric(torch.tensor([[1.0]]), torch.tensor([[0]])) == 2
    assert metric(torch.tensor([[1.0]]), torch.tensor([[1]])) == 2
    assert metric.compute() == 1


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(
        LightsaeError, match=r"indices has shape \[2, 3\], expected values' \[2, 4\]"
    ):
        dead_latents(torch.zeros(2, 4), torch.zeros(2, 3, dtype=torch.long), d_sae=5)
