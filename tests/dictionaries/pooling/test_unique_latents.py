"""Latents of several dictionaries, each once."""

import pytest
import torch
from torch import Tensor

from lightsae.dictionaries.pooling import unique_latents as module
from lightsae.dictionaries.pooling.firing_rows import FiringRows
from lightsae.dictionaries.pooling.unique_latents import Order, unique_latents
from lightsae.errors import LightsaeError
from lightsae.sae import SparseCode


def fired(*dictionaries: Tensor) -> FiringRows:
    """FiringRows of dense codes [rows, d_sae]."""
    firings = FiringRows([dense.shape[1] for dense in dictionaries])
    firings.update([code_of(dense) for dense in dictionaries])
    return firings


def code_of(dense: Tensor) -> SparseCode:
    values, indices = dense.double().sort(dim=1, descending=True)
    return SparseCode(values, indices, dense.shape[1])


def by_definition(
    rows: Tensor, fires: Tensor, stability: Tensor, cosine: float, iou: float, order: Order
) -> list[int]:
    """The numbers that are kept, with loops in float64."""
    counts = fires.sum(dim=0).tolist()
    keys = list(zip(stability.tolist(), counts, strict=True))
    if order == "frequency":
        keys = [(count, stable) for stable, count in keys]
    visited = sorted(range(len(rows)), key=lambda i: keys[i], reverse=True)
    kept: list[int] = []
    for i in visited:
        if not counts[i] or not rows[i].any():
            continue
        unit = rows[i].double() / rows[i].double().norm()
        for j in kept:
            both = (fires[:, i] & fires[:, j]).sum().item()
            either = (fires[:, i] | fires[:, j]).sum().item()
            if unit @ rows[j].double() / rows[j].double().norm() >= cosine or both / either >= iou:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("order", ["stability", "frequency"])
@pytest.mark.parametrize(("cosine", "iou"), [(0.6, 0.5), (0.8, 2.0), (2.0, 0.3), (2.0, 2.0)])
def test_the_greedy_visit_in_blocks_is_that_of_the_definition(
    order: Order, cosine: float, iou: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_KEPT", 5)
    generator = torch.Generator().manual_seed(0)
    sizes = (13, 9, 20)
    decoders = [torch.randn(size, 3, generator=generator, dtype=torch.float64) for size in sizes]
    decoders[1][2] = 0
    fires = torch.rand(25, 42, generator=generator) < 0.15
    fires[:, 30] = False
    stability = torch.randint(3, (42,), generator=generator) / 2
    firings = fired(*fires.split(sizes, dim=1))
    found = unique_latents(decoders, stability, firings, cosine=cosine, iou=iou, order=order)
    kept = by_definition(torch.cat(decoders), fires, stability, cosine, iou, order)
    starts = torch.tensor([0, 13, 22])
    assert (starts[found.dictionary] + found.latent).tolist() == kept
    assert torch.equal(found.stability, stability[kept].double())
    assert torch.equal(found.firings, fires.sum(dim=0)[kept])


def test_the_same_dictionary_twice_is_kept_once_whatever_its_order_and_scale() -> None:
    W = torch.eye(6)
    again = 3 * W[torch.randperm(6)]
    fires = torch.ones(4, 6)
    found = unique_latents([W, again], torch.ones(12), fired(fires, fires), iou=2)
    assert found.dictionary.tolist() == [0] * 6 and found.latent.tolist() == list(range(6))


def test_opposite_directions_are_two_latents() -> None:
    fires = torch.eye(3)
    found = unique_latents([torch.eye(3), -torch.eye(3)], torch.ones(6), fired(fires, 1 - fires))
    assert len(found.latent) == 6


def test_latents_that_fire_on_the_same_rows_are_one_whatever_their_directions() -> None:
    fires = torch.tensor([[1.0], [0.0]])
    decoders = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])]
    found = unique_latents(decoders, torch.tensor([0.0, 1.0]), fired(fires, fires))
    assert (found.dictionary.tolist(), found.latent.tolist()) == ([1], [0])


def test_the_first_of_the_order_are_kept_where_there_is_a_limit() -> None:
    fires = torch.eye(4)
    stability = torch.tensor([0.0, 0.5, 1.0, 0.25])
    found = unique_latents([torch.eye(4)], stability, fired(fires), most=2)
    assert found.latent.tolist() == [2, 1]


def test_nothing_is_kept_of_latents_that_never_fire() -> None:
    found = unique_latents([torch.eye(3)], torch.ones(3), fired(torch.zeros(5, 3)))
    assert [len(each) for each in found] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cosine": 0.0}, "cosine is 0.0, expected a number above 0"),
        ({"iou": float("nan")}, "iou is nan, expected a number above 0"),
        ({"order": "age"}, "order is 'age', expected one of stability, frequency"),
        ({"most": 0}, "d_sae is 0, expected at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        unique_latents([torch.eye(2)], torch.ones(2), fired(torch.eye(2)), **options)  # type: ignore[arg-type]


def test_figures_of_other_latents_are_refused() -> None:
    with pytest.raises(LightsaeError, match="stability has 3 latents, firings 2, the dict"):
        unique_latents([torch.eye(2)], torch.ones(3), fired(torch.eye(2)))
