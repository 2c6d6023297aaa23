"""One latent of the small dictionary, several of the large one."""

import pytest
import torch
from torch import Tensor

from lightsae.dictionaries import FeatureSplitting
from lightsae.errors import LightsaeError
from lightsae.sae import SparseCode


def code_of(active: Tensor) -> SparseCode:
    """A mask of rows and latents as a code."""
    return SparseCode(active.float(), torch.arange(active.shape[1]).expand(active.shape),
                      active.shape[1])  # fmt: skip


def rows_of(*rows: list[int], n: int) -> SparseCode:
    """Of each row the latents that fire."""
    active = torch.zeros(len(rows), n, dtype=torch.bool)
    for row, latents in enumerate(rows):
        active[row, latents] = True
    return code_of(active)


# Directions 0 and 1 are the parts of the first latent, 2 is the second, 3 has no counterpart.
SMALL = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
LARGE = torch.eye(4)


def test_a_latent_whose_parts_take_turns_splits() -> None:
    splitting = FeatureSplitting(SMALL, LARGE)
    splitting.update(rows_of([0], [0], [0, 1], n=2), rows_of([0], [1], [0, 2], n=4))
    splitting.update(rows_of([0], [], [1], n=2), rows_of([1], [1], [2], n=4))
    found = splitting.compute()
    assert found.splits.tolist() == [True, False]
    assert found.coverage.tolist() == [1, 1]
    assert [part[:2] for part in found.parts] == [(0, 0), (0, 1)]
    assert [part.share for part in found.parts] == [2 / 4, 2 / 4]
    assert [part.within for part in found.parts] == [1, 2 / 3]
    assert found.parts[0].cosine == pytest.approx(2**-0.5)
    assert len(found.table().splitlines()) == 3


@pytest.mark.parametrize(
    ("large", "rows", "coverage"),
    [
        ("the second part never fires", ([0], [0], [], []), 0.5),
        ("the parts leave rows out", ([0], [1], [], []), 0.5),
        ("one of them fires on all", ([0], [0, 1], [0], [0]), 1),
        ("they fire elsewhere", ([3], [3], [3], [3]), 0),
    ],
)
def test_it_does_not_where(large: str, rows: tuple[list[int], ...], coverage: float) -> None:
    splitting = FeatureSplitting(SMALL, LARGE)
    splitting.update(rows_of([0], [0], [0], [0], n=2), rows_of(*rows, n=4))
    found = splitting.compute()
    assert not found.splits.any() and found.parts == []
    assert found.coverage[0] == coverage
    assert found.coverage[1].isnan(), "it never fired"


def test_parts_that_point_elsewhere_are_no_candidates() -> None:
    splitting = FeatureSplitting(SMALL, LARGE, threshold=0.8)
    splitting.update(rows_of([0], [0], n=2), rows_of([0], [1], n=4))
    assert splitting.compute().coverage[0] == 0


def test_sums_over_ragged_batches_are_those_of_loops() -> None:
    torch.manual_seed(0)
    small, large = torch.randn(5, 3), torch.randn(17, 3)
    active, other = torch.rand(60, 5) < 0.4, torch.rand(60, 17) < 0.2
    splitting = FeatureSplitting(small, large, threshold=0.3, coverage=0.4)
    for rows in torch.arange(60).split([1, 0, 23, 36]):
        splitting.update(code_of(active[rows]), code_of(other[rows]))
    cosines = torch.nn.functional.cosine_similarity(large[:, None], small, dim=2)
    owner = cosines.argmax(1).where(cosines.amax(1) >= 0.3, -1)
    for latent in range(5):
        covered = other[:, owner == latent].any(1) & active[:, latent]
        share = covered.sum().double() / active[:, latent].sum()
        assert splitting.compute().coverage[latent] == share
    assert splitting.compute().parts
    for part in splitting.compute().parts:
        both = (active[:, part.latent] & other[:, part.part]).sum().double()
        assert part.share == both / active[:, part.latent].sum()
        assert part.within == both / other[:, part.part].sum()


def test_without_rows_nothing_splits() -> None:
    found = FeatureSplitting(SMALL, LARGE).compute()
    assert not found.splits.any() and found.coverage.isnan().all()


def test_what_is_given_wrong_is_refused() -> None:
    with pytest.raises(LightsaeError, match="coverage = 0, expected above 0 and at most 1"):
        FeatureSplitting(SMALL, LARGE, coverage=0)
    with pytest.raises(LightsaeError, match="other has d_sae = 2, expected 4"):
        FeatureSplitting(SMALL, LARGE).update(rows_of([0], n=2), rows_of([0], n=2))
