"""Top-k is a stable descending sort: the set, its order and its ties are exactly that."""

import pytest
import torch
from lightsae_kernels import reference
from lightsae_kernels.cpu import row_sort, select
from lightsae_kernels.cpu.select import select_topk, shortlist_topk

# Where kernels are measured it may be absent, and nothing here needs a GPU.
pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def assert_stable_sort(a: torch.Tensor, k: int) -> None:
    values, indices = select_topk(a, k)
    expected = reference.select_topk(a, k)
    assert torch.equal(indices, expected)
    assert torch.equal(values, a.gather(1, expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize(
    ("B", "N", "k"),
    [(41, 401, 7), (1, 1, 1), (3, 64, 64), (5, 1000, 1), (2, 6144, 32), (7, 97, 96)],
)
def test_random_rows(B: int, N: int, k: int, dtype: torch.dtype) -> None:
    a = torch.randn(B, N, generator=torch.Generator().manual_seed(1)).to(dtype).relu_()
    assert_stable_sort(a, k)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_ties_go_to_the_lowest_index(dtype: torch.dtype) -> None:
    a = torch.randint(0, 4, (50, 900), generator=torch.Generator().manual_seed(2)).to(dtype)
    assert_stable_sort(a, 20)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_fewer_positives_than_k_are_filled_from_the_left(dtype: torch.dtype) -> None:
    a = torch.zeros(3, 500, dtype=dtype)
    a[0, 400] = 2.0
    a[1, [3, 499]] = torch.tensor([1.0, 5.0], dtype=dtype)
    values, indices = select_topk(a, 4)
    assert indices.tolist() == [[400, 0, 1, 2], [499, 3, 0, 1], [0, 1, 2, 3]]
    assert values.tolist() == [[2, 0, 0, 0], [5, 1, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_negative_zero_is_a_zero(dtype: torch.dtype) -> None:
    a = torch.full((2, 300), -0.0, dtype=dtype).relu_()
    a[1, 7] = 1.0
    assert select_topk(a, 3)[1].tolist() == [[0, 1, 2], [7, 0, 1]]


def test_two_byte_rows_too_wide_for_a_key() -> None:
    a = torch.randn(2, (1 << 16) + 5, generator=torch.Generator().manual_seed(3))
    assert_stable_sort(a.bfloat16().relu_(), 33)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_nan_counts_as_largest_so_that_it_is_seen(dtype: torch.dtype) -> None:
    a = torch.rand(4, 400, generator=torch.Generator().manual_seed(4)).to(dtype)
    a[2, 333] = float("nan")
    values, _ = select_topk(a, 5)
    assert values.isnan().any(dim=1).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [(torch.float16, torch.int16), (torch.bfloat16, torch.int16), (torch.float32, torch.int32),
     (torch.float64, torch.int64)],
    ids=["float16", "bfloat16", "float32", "float64"],
)  # fmt: skip
def test_nan_of_negative_sign_is_seen(dtype: torch.dtype, bits: torch.dtype) -> None:
    a = torch.rand(4, 400, generator=torch.Generator().manual_seed(4)).to(dtype)
    a.view(bits)[2, 333] = -1
    values, indices = select_topk(a, 5)
    assert values.isnan().any(dim=1).tolist() == [False, False, True, False]
    assert indices[2, 0] == 333


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_several_threads_select_as_one_does(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_sort, "_LEAST", 1)
    monkeypatch.setattr(row_sort, "threads_of_torch", lambda: 3)
    a = torch.randn(10, 3000, generator=torch.Generator().manual_seed(5)).to(dtype).relu_()
    assert_stable_sort(a, 40)
    assert_stable_sort(a, 2999)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("tied", [1.0, 0.0, -1.0])
def test_nan_is_seen_among_ties(tied: float, dtype: torch.dtype) -> None:
    z = torch.full((3, 2000), tied, dtype=dtype)
    z[1, 1997] = float("nan")
    values, indices = select_topk(z, 4)
    assert values.isnan().any(dim=1).tolist() == [False, True, False]
    assert indices.tolist() == [[0, 1, 2, 3], [1997, 0, 1, 2], [0, 1, 2, 3]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 4, 32])
@pytest.mark.parametrize("positives", [0, 3, 5000], ids=lambda n: f"{n} positives")
def test_wide_rows_of_ties_are_selected_at_most_twice(
    positives: int, k: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    from_all = select._from_all

    def counting(bits: torch.Tensor, k: int) -> tuple[torch.Tensor, ...]:
        passes.append(len(bits))
        return from_all(bits, k)

    monkeypatch.setattr(select, "_from_all", counting)
    a = torch.zeros(6, 65536, dtype=dtype)
    a[::2, 60000 : 60000 + positives] = 2.0
    assert_stable_sort(a, k)
    tied = positives > k + select._SPARE
    assert passes == ([3] if tied else [])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_values_that_differ_in_their_last_bit_keep_their_order(dtype: torch.dtype) -> None:
    one = torch.ones((), dtype=dtype)
    above = torch.nextafter(one, one + one)
    a = torch.where(
        torch.rand(8, 4000, generator=torch.Generator().manual_seed(6)) < 0.5, above, one
    )
    a[:, :40:3] = 2.0
    assert_stable_sort(a, 24)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_the_smallest_positive_value_is_not_a_zero(dtype: torch.dtype) -> None:
    zero = torch.zeros((), dtype=dtype)
    a = zero.repeat(3, 4000)
    a[0, 3999] = a[1, [7, 1234]] = torch.nextafter(zero, zero + 1)
    assert_stable_sort(a, 5)


def test_few_positives_of_a_regularized_row_need_no_second_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(select, "_from_all", None)
    z = -torch.rand(20, 6144, generator=torch.Generator().manual_seed(7))
    z[:, 5::500] *= -1
    assert_stable_sort(z.relu(), 32)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 6),
    n=st.integers(1, 300),
    levels=st.integers(1, 50),
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_any_shape_with_any_number_of_ties(
    rows: int, n: int, levels: int, dtype: torch.dtype, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, n), label="k")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10_000), label="seed"))
    a = torch.randint(0, levels, (rows, n), generator=generator).to(dtype)
    assert_stable_sort(a, k)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize(
    ("B", "N", "count"), [(3, 65, 64), (5, 1000, 40), (2, 6144, 64), (1, (1 << 16) + 5, 70)]
)
@pytest.mark.parametrize("values", ["random", "tied", "negative"])
def test_nothing_beyond_a_shortlist_exceeds_its_bound(
    B: int, N: int, count: int, dtype: torch.dtype, values: str
) -> None:
    z = torch.randn(B, N, generator=torch.Generator().manual_seed(4))
    z = {"random": z, "tied": z.round(), "negative": -z.abs() - 1}[values].to(dtype)
    listed, bound = shortlist_topk(z, count)
    assert all(len(set(row)) == count for row in listed.tolist())
    left_out = z.relu().float().scatter(1, listed, 0.0).amax(dim=1)
    assert (left_out <= bound).all()
    if values == "random":
        # It is as tight as the rounding of its keys.
        kth = z.relu().float().topk(count, dim=1).values[:, -1]
        assert (bound <= kth * (1 + 2**-6) + 1e-6).all()
