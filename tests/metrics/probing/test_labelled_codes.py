import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.extras import MissingExtraError
from lightsae.metrics import LabelledCodes, LabelledRows
from lightsae.sae import SparseCode
from tests.metrics import references


def codes(n: int = 30) -> LabelledCodes:
    """With ties and rows of few latents."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-2, 4, (n, 5), generator=generator).relu() / 2
    indices = torch.rand(n, 9, generator=generator).topk(5, dim=1).indices
    return LabelledCodes(values, indices, torch.arange(n) % 3, d_sae=9)


def dense(given: LabelledCodes) -> Tensor:
    return torch.from_numpy(given.matrix().toarray())


@pytest.mark.parametrize("k", [1, 2, 3, 99])
def test_truncation_keeps_the_largest_and_the_lowest_of_equals(k: int) -> None:
    expected = references.truncated(dense(codes()), k)
    assert torch.equal(dense(codes().truncated(k)), expected)


def test_entries_in_any_order_are_the_same_rows() -> None:
    whole = codes()
    order = torch.randperm(len(whole.rows), generator=torch.Generator().manual_seed(1))
    shuffled = LabelledCodes(
        whole.values[order], whole.indices[order], whole.labels, 9, rows=whole.rows[order]
    )
    for name in ("values", "indices", "rows"):
        assert torch.equal(getattr(shuffled, name), getattr(whole, name))


def test_rows_without_a_latent_are_rows() -> None:
    given = LabelledCodes(torch.zeros(3, 2), torch.zeros(3, 2).long(), torch.arange(3), d_sae=4)
    assert (len(given), given.matrix().shape, given.matrix().nnz) == (3, (3, 4), 0)


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name="scipy")

    monkeypatch.setattr("lightsae.extras.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'lightsae\[evaluation\]'"):
        codes().matrix()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": torch.arange(3)}, r"values and labels have shapes \[2, 1\] and \[3\]"),
        ({"labels": torch.ones(2)}, "labels is torch.float32, expected integers"),
        ({"labels": None}, "labels is missing"),
        ({"rows": torch.tensor([[0], [2]])}, r"rows must lie in \[0, 2 rows\)"),
        ({"rows": torch.tensor([0])}, r"rows has shape \[1\], expected \[2, 1\]"),
        ({"indices": torch.tensor([[0], [4]])}, r"indices must lie in \[0, d_sae = 4\)"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Tensor | None], told: str) -> None:
    good = {
        "values": torch.ones(2, 1), "indices": torch.zeros(2, 1).long(),
        "labels": torch.tensor([0, 1]), "d_sae": 4,
    }  # fmt: skip
    with pytest.raises(LightsaeError, match=told):
        LabelledCodes(**(good | change))


def collected(order: Tensor, max_rows: int, size: int = 7, k: int = 5) -> LabelledCodes:
    metric, whole = LabelledRows(9, k, max_rows=max_rows), codes(200)
    for part in order.split(size):
        values = torch.zeros(len(part), 9).double()
        for place, row in enumerate(part.tolist()):
            chosen = whole.rows == row
            values[place, whole.indices[chosen]] = whole.values[chosen]
        code = SparseCode(values, torch.arange(9).expand(len(part), 9), 9)
        metric.update(code, whole.labels[part], part)
    return metric.compute()


def test_few_rows_are_all_kept() -> None:
    found = dense(collected(torch.arange(200), max_rows=1000))
    wanted = dense(codes(200))
    assert sorted(found.tolist()) == sorted(wanted.tolist())


def test_the_sample_of_many_does_not_depend_on_their_order() -> None:
    orders = torch.arange(200), torch.randperm(200, generator=torch.Generator().manual_seed(3))
    first, second = (collected(order, max_rows=40) for order in orders)
    assert len(first) == 40
    assert torch.equal(dense(first), dense(second))
    assert torch.equal(first.labels, second.labels)


def test_of_rows_with_more_places_the_largest_stay() -> None:
    found = collected(torch.arange(200), max_rows=1000, k=2)
    whole = collected(torch.arange(200), max_rows=1000)
    assert torch.equal(dense(found), references.truncated(dense(whole), 2))


def test_codes_of_patches_need_their_token() -> None:
    metric = LabelledRows(9, k=1, max_rows=10)
    row = torch.ones(2, 1), torch.zeros(2, 1).long(), torch.tensor([0, 0]), torch.tensor([5, 5])
    metric.update(*row, torch.tensor([0, 1]))
    assert len(metric.compute()) == 2
    with pytest.raises(LightsaeError, match=r"token_index has shape \[1\], expected \[2\]"):
        metric.update(*row, torch.tensor([0]))
    with pytest.raises(LightsaeError, match="values and sample_index have shapes"):
        metric.update(*row[:3], torch.tensor([5]))
