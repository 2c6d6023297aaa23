"""A general latent is silent where a special one fires in its place."""

import math

import pytest
import torch
from torch import Tensor

from lightsae.dictionaries import FeatureAbsorption
from lightsae.errors import LightsaeError

from .test_splitting import code_of, rows_of

# Latents: a general one, a special one with its direction in it, one of another direction.
ABSORBING = torch.tensor([[1.0, 0.0, 0.0], [0.7, 0.7, 0.0], [0.0, 0.0, 1.0]])
PLAIN = torch.eye(3)
SPECIAL_ROWS = [[0], [0], [0], [1], [1, 2], [2]]
PLAIN_ROWS = [[0], [0], [0], [0, 1], [0, 1, 2], [2]]


def test_the_special_latent_that_fires_in_place_of_the_general_one_is_found() -> None:
    absorption = FeatureAbsorption(ABSORBING, PLAIN)
    for part in slice(0, 2), slice(2, 6):
        absorption.update(rows_of(*SPECIAL_ROWS[part], n=3), rows_of(*PLAIN_ROWS[part], n=3))
    found = absorption.compute()
    assert found.partner.tolist() == [0, 1, 2]
    assert found.holes.tolist() == [2 / 5, 0, 0]
    (absorber,) = found.absorbers
    assert absorber[:3] == (0, 0, 1)
    assert absorber[3:] == pytest.approx((2**-0.5, 1, 1, 2 / 5))
    assert found.rate == pytest.approx(1 / 3)
    assert len(found.table().splitlines()) == 2


@pytest.mark.parametrize(
    ("why", "rows"),
    [
        ("the general one fires too", [[0], [0], [0], [0, 1], [0, 1, 2], [2]]),
        ("the special one fires elsewhere", [[0], [0], [0], [1], [1, 2], [1, 2]]),
        ("another fires in the holes", [[0], [0], [0], [2], [2], [2]]),
        ("none fires in the holes", [[0], [0], [0], [], [], []]),
    ],
)
def test_it_is_none_where(why: str, rows: list[list[int]]) -> None:
    absorption = FeatureAbsorption(ABSORBING, PLAIN)
    absorption.update(rows_of(*rows, n=3), rows_of(*PLAIN_ROWS, n=3))
    assert absorption.compute().absorbers == []


def test_parts_of_one_that_split_do_not_absorb_each_other() -> None:
    whole = torch.tensor([[1.0, 0.5, 0.0]])
    absorption = FeatureAbsorption(PLAIN, whole)
    absorption.update(rows_of([0], [0], [1], n=3), rows_of([0], [0], [0], n=1))
    found = absorption.compute()
    assert found.holes[0] == 1 / 3 and found.absorbers == []


def test_without_rows_or_partners_nothing_is_judged() -> None:
    assert math.isnan(FeatureAbsorption(ABSORBING, PLAIN).compute().rate)
    absorption = FeatureAbsorption(PLAIN, -PLAIN)
    absorption.update(rows_of([0], n=3), rows_of([0], n=3))
    assert absorption.compute().partner.tolist() == [-1, -1, -1]
    assert math.isnan(absorption.compute().rate)


def shares(active: Tensor, other: Tensor, i: int, j: int) -> tuple[Tensor, Tensor, Tensor]:
    """Within, silent and lost, by the definition; latent i has partner i."""
    here = active[:, j] & other[:, i]
    silent = here & ~active[:, i]
    counts = here.sum().double(), silent.sum().double()
    return counts[0] / active[:, j].sum(), counts[1] / here.sum(), counts[1] / other[:, i].sum()


def test_every_pair_is_judged_as_the_definition_says() -> None:
    W = torch.randn(9, 40, dtype=torch.float64)
    W[5:] += 1.5 * W[:4]
    active, other = torch.rand(50, 9) < 0.1, torch.rand(50, 9) < 0.6
    absorption = FeatureAbsorption(W, W, cosine=0.1, within=0.6, silent=0.8)
    absorption.update(code_of(active), code_of(other))
    cosines = torch.nn.functional.cosine_similarity(W[:, None], W, dim=2)
    expected = {}
    for i in range(9):
        for j in set(range(9)) - {i}:
            within, silent, lost = shares(active, other, i, j)
            rarer = active[:, j].sum() < other[:, i].sum()
            if cosines[i, j] >= 0.1 and within >= 0.6 and silent >= 0.8 and rarer:
                expected[i, j] = [float(each) for each in (cosines[i, j], within, silent, lost)]
    found = {(one.latent, one.absorber): list(one[3:]) for one in absorption.compute().absorbers}
    assert found.keys() == expected.keys() and found
    for pair in found:
        assert found[pair] == pytest.approx(expected[pair])


def test_what_is_given_wrong_is_refused() -> None:
    with pytest.raises(LightsaeError, match="within = 90, expected above 0 and at most 1"):
        FeatureAbsorption(PLAIN, PLAIN, within=90)
    with pytest.raises(LightsaeError, match="code has 2 rows and other 1"):
        FeatureAbsorption(PLAIN, PLAIN).update(rows_of([0], [1], n=3), rows_of([0], n=3))
