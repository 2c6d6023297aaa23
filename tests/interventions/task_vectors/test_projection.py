"""Energy on a span: against projections written out, and what chance keeps."""

import pytest
import torch
from scipy.stats import beta
from torch import Tensor

from lightsae.dictionaries.subspaces.overlap import random_basis
from lightsae.errors import LightsaeError
from lightsae.interventions.task_vectors.projection import (
    energy_kept,
    orthonormal_basis,
    projected,
    residual_side,
)
from lightsae.interventions.task_vectors.task_vector import TaskVector

D = 12
SHAPES = {
    "attn.qkv.weight": (36, D), "attn.proj.weight": (D, D), "mlp.fc2.weight": (D, 48),
    "conv.weight": (7, D, 3, 3), "attn.qkv.bias": (36,), "norm.weight": (D,),
}  # fmt: skip


@pytest.fixture
def changes() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def directions(count: int) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(1))


def test_energy_is_that_of_projections_written_out(changes: dict[str, Tensor]) -> None:
    rows = directions(3).double()
    projector = rows.T @ torch.linalg.inv(rows @ rows.T) @ rows
    kept = {
        "attn.qkv.weight": changes["attn.qkv.weight"].double() @ projector,
        "attn.proj.weight": projector @ changes["attn.proj.weight"].double(),
        "mlp.fc2.weight": projector @ changes["mlp.fc2.weight"].double(),
        "conv.weight": torch.einsum("cd,odhw->ochw", projector, changes["conv.weight"].double()),
    }
    found = energy_kept(changes, orthonormal_basis(rows.float()))
    energies = [sum(float(each.square().sum()) for each in part.values()) for part in (
        kept, {name: changes[name].double() for name in kept},
    )]  # fmt: skip
    assert found.kept == pytest.approx(energies[0] / energies[1], rel=1e-6)
    assert (found.rank, found.d, found.baseline) == (3, D, 0.25)

    vector = TaskVector(changes, {"block": tuple(changes)})
    filtered = projected(vector, {"block": orthonormal_basis(rows)})
    assert filtered.changes.keys() == kept.keys()  # vectors are left out
    for name, expected in kept.items():
        torch.testing.assert_close(filtered.changes[name], expected.float(), rtol=1e-4, atol=1e-5)
    assert filtered.energy(["block"]) == pytest.approx(energies[0], rel=1e-5)


def test_all_directions_keep_everything(changes: dict[str, Tensor]) -> None:
    assert energy_kept(changes, orthonormal_basis(directions(40))).kept == pytest.approx(1)


def test_dependent_directions_count_once() -> None:
    rows = torch.cat([directions(3), 1e4 * directions(3), directions(3).sum(0, keepdim=True)])
    assert orthonormal_basis(rows).shape == (3, D)
    with pytest.raises(LightsaeError, match="directions span nothing"):
        orthonormal_basis(torch.zeros(2, D))
    with pytest.raises(LightsaeError, match=r"directions are \[12\]"):
        orthonormal_basis(torch.ones(D))


def test_lengths_of_directions_do_not_matter_and_few_of_many_or_many_of_few_have_the_rank() -> None:
    lengths = torch.logspace(-20, 5, 4).unsqueeze(1)
    basis = orthonormal_basis(directions(4) * lengths)
    assert basis.shape == (4, D)
    torch.testing.assert_close(
        basis.T @ basis, orthonormal_basis(directions(4)).T @ orthonormal_basis(directions(4)),
        atol=1e-5, rtol=0,
    )  # fmt: skip
    low_rank = torch.randn(40, 2, generator=torch.Generator().manual_seed(3)) @ directions(2)
    found = energy_kept({"w": torch.eye(D)}, orthonormal_basis(low_rank))
    assert (found.rank, found.baseline) == (2, 2 / D) and found.kept == pytest.approx(2 / D)
    assert orthonormal_basis(torch.cat([torch.zeros(1, D), directions(1)])).shape == (1, D)


def test_chance_keeps_r_over_d_and_its_interval_narrows_with_rank_of_the_change() -> None:
    generator = torch.Generator().manual_seed(2)
    full, single = torch.randn(D, 400, generator=generator), torch.zeros(D, 5)
    single[3] = 1.0
    basis = random_basis(3, D, generator)
    wide, narrow = (energy_kept({"w": each}, basis, draws=2000) for each in (single, full))
    assert narrow.low < 0.25 < narrow.high and wide.low < 0.25 < wide.high
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)
    # Of one direction a random subspace keeps a share of the distribution Beta(r/2, (d - r)/2).
    ends = tuple(beta(3 / 2, 9 / 2).ppf([0.025, 0.975]))
    assert (wide.low, wide.high) == pytest.approx(ends, abs=0.03)
    assert energy_kept({"w": full}, basis, seed=4) == energy_kept({"w": full}, basis, seed=4)


def test_sides() -> None:
    assert residual_side("w", torch.ones(D, D), D) == "output"
    assert residual_side("w", torch.ones(5, D), D) == "input"
    for name in (
        "blocks.0.attn.q_proj.weight",
        "layer.3.self.query.weight",
        "to_v.weight",
    ):
        assert residual_side(name, torch.ones(D, D), D) == "input"
        assert residual_side(name, torch.ones(D, 5), D) == "output"
    assert residual_side("attn.proj.weight", torch.ones(D, D), D) == "output"
    assert residual_side("b", torch.ones(D), D) is None
    with pytest.raises(LightsaeError, match=r"^w is \[5, 7\], expected a side of d_in = 12$"):
        residual_side("w", torch.ones(5, 7), D)


def test_no_energy_is_refused() -> None:
    basis = orthonormal_basis(directions(2))
    with pytest.raises(LightsaeError, match="it has no energy"):
        energy_kept({"w": torch.zeros(D, 3), "b": torch.ones(D)}, basis)
    with pytest.raises(LightsaeError, match="draws is 1"):
        energy_kept({"w": torch.ones(D, 3)}, basis, draws=1)
