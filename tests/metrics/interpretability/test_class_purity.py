import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.metrics import ClassPurity, class_purity
from tests.metrics import references


def entries(dense: Tensor) -> tuple[Tensor, Tensor]:
    return dense.topk(int((dense > 0).sum(1).max()), dim=1)[:2]


@pytest.mark.parametrize("seed", range(3))
def test_shares_of_the_main_class(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(80, 12, generator=generator, dtype=torch.float64).sub(0.6).relu()
    labels = torch.randint(5, (80,), generator=generator)
    purity = class_purity(*entries(dense), labels, d_sae=12, n_classes=5)
    expected = references.class_purity(dense, labels, 5)
    for name, values in expected.items():
        wanted = torch.tensor(values, dtype=torch.float64)
        found = getattr(purity, name).double()
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0, equal_nan=True)
    torch.testing.assert_close(purity.mean_binary, purity.binary.nanmean())


def test_the_lowest_of_equal_classes_is_the_main_one() -> None:
    values, indices = torch.tensor([[1.0], [5.0]]), torch.zeros(2, 1).long()
    purity = class_purity(values, indices, torch.tensor([2, 1]), d_sae=1, n_classes=3)
    assert purity.main_class.tolist() == [1]
    assert (purity.binary.item(), purity.weighted.item()) == (0.5, pytest.approx(5 / 6))


def test_silent_latents_have_none_and_do_not_count() -> None:
    purity = class_purity(torch.ones(1, 1), torch.tensor([[1]]), torch.tensor([0]), 3, 2)
    assert purity.main_class.tolist() == [-1, 0, -1]
    assert purity.binary.isnan().tolist() == purity.weighted.isnan().tolist() == [True, False, True]
    assert (purity.mean_binary, purity.mean_weighted) == (1, 1)


def test_without_rows_there_is_no_mean() -> None:
    purity = class_purity(torch.zeros(0, 2), torch.zeros(0, 2).long(), torch.zeros(0).long(), 3, 2)
    assert purity.mean_binary.isnan() and purity.mean_weighted.isnan()


def test_pooled_entries_have_a_label_each() -> None:
    dense = torch.tensor([[1.0, 0.0], [2.0, 3.0]])
    labels = torch.tensor([0, 1])
    rows, latents = dense.nonzero(as_tuple=True)
    pooled = class_purity(dense[rows, latents], latents, labels[rows], d_sae=2, n_classes=2)
    whole = class_purity(*entries(dense), labels, d_sae=2, n_classes=2)
    assert torch.equal(pooled.weighted, whole.weighted)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": torch.tensor([0, 3])}, r"labels must lie in \[0, n_classes = 3\)"),
        ({"labels": torch.tensor([0, -1])}, r"labels must lie in \[0, n_classes = 3\)"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels is torch.float32, expected integers"),
        ({"labels": torch.tensor([0])}, r"values, indices and labels have shapes .* and \[1\]"),
        ({"values": -torch.ones(2, 1)}, "values must be finite and not negative"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor], told: str) -> None:
    good = {
        "values": torch.ones(2, 1), "indices": torch.zeros(2, 1).long(),
        "labels": torch.tensor([0, 1]),
    }  # fmt: skip
    with pytest.raises(LightsaeError, match=told):
        ClassPurity(4, 3).update(**(good | change))
