import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics import MoransI, MoransIScores, morans_i
from lightsae.sae import SparseCode
from tests.metrics import references


def of_image(pattern: list[list[float]]) -> MoransIScores:
    """Of one latent that is active as the pattern says."""
    a = torch.tensor(pattern, dtype=torch.float64)
    values, n = a.reshape(-1, 1), a.numel()
    where = torch.zeros(n).long(), torch.arange(n)
    grid = (a.shape[0], a.shape[1])
    return morans_i(values, torch.zeros(n, 1).long(), *where, d_sae=1, grid=grid)


@pytest.mark.parametrize("grid", [(1, 2), (2, 2), (1, 7), (5, 1), (3, 4)])
@pytest.mark.parametrize("density", [0.2, 0.7, 1.0])
def test_it_is_the_double_sum_over_patches(grid: tuple[int, int], density: float) -> None:
    n, generator = grid[0] * grid[1], torch.Generator().manual_seed(0)
    dense = 0.1 + torch.rand(5 * n, 4, generator=generator, dtype=torch.float64)
    dense = dense * (torch.rand(5 * n, 4, generator=generator) < density)
    values, indices = dense.topk(4, dim=1)
    sample, patch = torch.arange(5 * n) // n * 7 - 9, torch.arange(5 * n) % n
    found = morans_i(values, indices, sample, patch, d_sae=4, grid=grid)
    expected = references.morans_i(dense, sample, patch, grid)
    wanted = torch.tensor(expected["scores"], dtype=torch.float64)
    torch.testing.assert_close(found.scores, wanted, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert found.images.tolist() == expected["images"]


def test_a_chequerboard_is_minus_one_and_a_half_is_positive() -> None:
    assert of_image([[1, 0, 1], [0, 1, 0]]).scores.item() == pytest.approx(-1)
    assert of_image([[1, 1, 0, 0], [1, 1, 0, 0]]).scores.item() == pytest.approx(0.6)


@pytest.mark.parametrize("offset", [0.1, 1e6])
def test_a_constant_on_every_patch_changes_nothing(offset: float) -> None:
    pattern = [[1.0, 2.0, 0.0], [3.0, 1.0, 0.0]]
    shifted = [[offset + a for a in row] for row in pattern]
    assert of_image(shifted).scores.item() == pytest.approx(of_image(pattern).scores.item())


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_an_image_on_which_nothing_varies_has_none(value: float) -> None:
    found = of_image([[value, value], [value, value]])
    assert found.images.tolist() == [0]
    assert found.scores.isnan().all() and found.mean.isnan()


def test_images_with_missing_patches_are_counted_and_left_out() -> None:
    metric = MoransI(1, (1, 3))
    row = torch.ones(1, 1), torch.zeros(1, 1).long()
    for image, patch in ((0, 0), (1, 2), (0, 2), (1, 0), (0, 1)):
        metric.update(*row, torch.tensor([image]), torch.tensor([patch]))
    assert metric.compute().incomplete == 1
    metric.update(SparseCode(row[0] * 3, row[1], 1), torch.tensor([1]), torch.tensor([1]))
    found = metric.compute()
    assert (found.incomplete, found.images.tolist()) == (0, [1])


def test_complete_images_are_forgotten() -> None:
    metric = MoransI(3, (2, 2))
    for image in range(50):
        values, indices = torch.rand(4, 1), torch.randint(3, (4, 1))
        metric.update(values, indices, torch.full((4,), image), torch.arange(4))
        assert sum(map(len, metric.values)) <= 4


def test_patches_in_any_order_are_not_looked_through_at_each_batch() -> None:
    metric = MoransI(3, (8, 8))
    order = torch.randperm(64 * 20, generator=torch.Generator().manual_seed(0))
    for part in order.split(16):
        metric.update(torch.ones(16, 1), part.unsqueeze(1) % 3, part // 64, part % 64)
    assert metric.compute().incomplete == 0


GOOD = {
    "values": torch.ones(2, 1),
    "indices": torch.zeros(2, 1).long(),
    "sample_index": torch.zeros(2).long(),
    "patch_index": torch.tensor([0, 1]),
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"patch_index": torch.tensor([0, 4])}, r"patch_index must lie in \[0, 4 patches\)"),
        ({"patch_index": torch.tensor([1, 1])}, "a patch of an image was given twice"),
        ({"patch_index": torch.tensor([1])}, r"patch_index have shapes \[2, 1\] and \[1\]"),
        ({"patch_index": None}, "patch_index is missing"),
        ({"sample_index": torch.zeros(3).long()}, r"sample_index have shapes .* and \[3\]"),
        ({"values": -torch.ones(2, 1)}, "values must be finite and not negative"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor | None], told: str) -> None:
    with pytest.raises(LightsaeError, match=told):
        morans_i(**(GOOD | change), d_sae=1, grid=(2, 2))


def test_a_single_patch_is_no_grid() -> None:
    with pytest.raises(LightsaeError, match=r"grid = \(1, 1\), expected at least two patches"):
        MoransI(1, (1, 1))
