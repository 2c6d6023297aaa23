"""Supports that are narrowed, above a bound or selected bank by bank, against the definition."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import ArgumentError, encode_residual, encode_topk, reference
from lightsae_kernels.cpu import bf16_screen
from torch import Tensor

Make = Callable[..., Any]
Close = Callable[..., None]
NAMES = ("x", "W_enc", "b_enc", "W_dec", "b_dec")
D_SAE, K = 60, 6
SUPPORTS: dict[str, dict[str, Any]] = {
    "narrow": {"narrow": lambda values, indices: values > 1.2},
    "none-used": {"narrow": lambda values, indices: values < 0},
    "every-other": {"narrow": lambda values, indices: indices % 2 == 0},
    "bank": {"bank": 20},
    "group-max": {"bank": 10},
    "bank-narrow": {"bank": 20, "narrow": lambda values, indices: values > 1.2},
    "above": {"above": torch.tensor(2.2)},
    "above-each": {"above": torch.linspace(0, 4, D_SAE)},
    "above-nothing": {"above": torch.tensor(99.0)},
    "above-zero": {"above": torch.tensor(-1.0)},
    "above-narrow": {"above": torch.tensor(1.0), "narrow": lambda values, indices: values > 3},
}
PENALTIES = [
    pytest.param(None, True, id="plain"),
    pytest.param("off_support_l1", True, id="reg1-masked"),
    pytest.param("off_support_l1", False, id="reg1-unmasked"),
    pytest.param("l1_l2_ratio", True, id="reg2-masked"),
    pytest.param("l1_l2_ratio", False, id="reg2-unmasked"),
]


def run(problem: Any, backend: str, **options: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs and gradients of encode_residual, the code as [B, d_sae], and its support."""
    x, W_enc, b_enc, b_dec, W_dec = problem.leaves()
    leaves = (x, W_enc, b_enc, W_dec, b_dec)
    encoded, left = encode_residual(*leaves, K, backend=backend, **options)
    dense = torch.zeros(len(x), D_SAE, dtype=x.dtype)
    dense = dense.scatter_add(1, encoded.indices, encoded.values)
    upstream = torch.randn(dense.shape, generator=torch.Generator().manual_seed(9))
    loss = (dense * upstream).sum() + 0.7 * encoded.penalty + 0.3 * left.error.sum()
    gradients = torch.autograd.grad(loss, leaves)
    found = {"code": dense, "penalty": encoded.penalty, "error": left.error}
    found["batch_active"] = encoded.batch_active.double()
    found |= {f"d_{name}": g for name, g in zip(NAMES, gradients, strict=True)}
    used = torch.ones_like(encoded.indices) if encoded.used is None else encoded.used.long()
    return found, torch.zeros(len(x), D_SAE).long().scatter_add(1, encoded.indices, used)


@pytest.mark.parametrize(("regularizer", "masked"), PENALTIES)
@pytest.mark.parametrize("support", SUPPORTS)
def test_equals_the_definition(
    support: str, regularizer: Any, masked: bool, make_problem: Make, assert_close: Close
) -> None:
    problem = make_problem(23, 7, D_SAE)
    # A row of nothing but the centre, with which few latents fire.
    problem.x[3] = problem.b_dec
    options = {"regularizer": regularizer, "batch_active_only": masked, **SUPPORTS[support]}
    ours, our_support = run(problem, "cpu", **options)
    wanted, expected_support = run(problem, "reference", **options)
    assert torch.equal(our_support, expected_support)
    for name, expected in wanted.items():
        assert_close(name, ours[name], expected, 1e-12)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_bank_gives_its_largest_whatever_the_others_hold(
    backend: Any, make_problem: Make
) -> None:
    problem = make_problem(31, 5, D_SAE, grid=1.0)
    a = reference.activations(*problem.encoder)
    encoded = encode_topk(*problem.encoder, K, bank=20, backend=backend)
    for row, values, indices in zip(a, encoded.values, encoded.indices, strict=True):
        for place, first in enumerate(range(0, D_SAE, 20)):
            part = row[first : first + 20]
            wanted = sorted(range(20), key=lambda j, part=part: (-float(part[j]), j))[:2]
            here = slice(2 * place, 2 * place + 2)
            assert indices[here].tolist() == [first + j for j in wanted]
            assert torch.equal(values[here], part[wanted])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_group_maxima_are_selected_in_every_dtype(dtype: torch.dtype, make_problem: Make) -> None:
    tensors = [t.to(dtype) for t in make_problem(31, 5, D_SAE, grid=0.5).encoder]
    ours = encode_topk(*tensors, K, bank=10, backend="cpu")
    wanted = encode_topk(*tensors, K, bank=10, backend="reference")
    assert torch.equal(ours.indices, wanted.indices)
    assert torch.equal(ours.values, wanted.values)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("given", [False, True], ids=["selected", "given"])
def test_unused_places_are_zero_and_told(given: bool, backend: Any, make_problem: Make) -> None:
    problem = make_problem(23, 7, D_SAE)
    whole = encode_topk(*problem.encoder, K)
    stays = whole.indices % 3 == 0
    options = {"indices": whole.indices} if given else {"regularizer": "off_support_l1"}
    encoded = encode_topk(
        *problem.encoder, K, narrow=lambda values, indices: indices % 3 == 0, backend=backend,
        **options,
    )  # fmt: skip
    assert whole.used is None and encoded.used is not None
    assert torch.equal(encoded.used, stays)
    assert torch.equal(encoded.values, whole.values * stays)
    assert torch.equal(encoded.indices, whole.indices)


def test_the_cpu_leaves_out_places_that_nothing_counts(make_problem: Make) -> None:
    problem = make_problem(23, 7, D_SAE)
    encoded = encode_topk(*problem.encoder, K, narrow=lambda values, indices: indices % 3 == 0)
    whole = encode_topk(*problem.encoder, K)
    assert encoded.used is not None
    for row, used, wanted in zip(encoded.indices, encoded.used, whole.indices, strict=True):
        assert row[used].tolist() == [j for j in wanted.tolist() if j % 3 == 0]
    assert encoded.used.shape[1] == int((whole.indices % 3 == 0).sum(dim=1).max())


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("each", [False, True], ids=["one-bound", "a-bound-each"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_bound_is_not_rounded_up_to_what_exceeds_it(
    dtype: torch.dtype, each: bool, backend: Any
) -> None:
    at = torch.tensor([2.0, 1.0, 0.0], dtype=dtype)
    encoder = torch.eye(3, dtype=dtype), torch.zeros(3, dtype=dtype), torch.zeros(3, dtype=dtype)
    below, same, above = (at.float() * (1 + step) for step in (-1e-5, 0.0, 1e-5))
    for bound, count in ((below, 2), (same, 0), (above, 0)):
        if not each:
            bound = bound[1]
        encoded = encode_topk(at[None], *encoder, 1, above=bound, backend=backend)
        assert encoded.used is not None
        assert encoded.used.sum() == (count if each else max(count, 1))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_banks_of_an_empty_batch_are_no_error(backend: Any, make_problem: Make) -> None:
    encoded = encode_topk(*make_problem(0, 7, D_SAE).encoder, K, bank=20, backend=backend)
    assert encoded.values.shape == encoded.indices.shape == (0, K)


@pytest.mark.parametrize(
    ("bank", "k", "message"),
    [
        (7, 6, "bank must be an integer that divides d_sae = 60, got 7"),
        (0, 6, "bank must be an integer that divides d_sae = 60, got 0"),
        (2.0, 6, "bank must be an integer that divides d_sae = 60, got 2.0"),
        (20, 4, "k must be a multiple of the 3 banks of 20 latents, got 4"),
    ],
)
def test_banks_that_do_not_fit_are_named(
    bank: Any, k: int, message: str, make_problem: Make
) -> None:
    with pytest.raises(ArgumentError, match=message):
        encode_topk(*make_problem(3, 4, D_SAE).encoder, k, bank=bank)


@pytest.mark.parametrize("each", [False, True], ids=["one-bound", "a-bound-each"])
def test_a_screened_product_finds_all_above_a_bound_and_nothing_else(
    each: bool, make_problem: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bf16_screen, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(bf16_screen, "_LEAST_PRODUCTS", 1)
    tensors = [t.float() for t in make_problem(300, 24, 500).encoder]
    tensors[0][7] = 0.0
    tensors[1][11] = 0.0
    bound = torch.linspace(0, 12, 500) if each else torch.tensor(5.0)
    ours = encode_topk(*tensors, 1, above=bound, backend="cpu")
    wanted = encode_topk(*tensors, 1, above=bound, backend="reference")
    assert torch.equal(ours.used, wanted.used) and torch.equal(ours.indices, wanted.indices)
    torch.testing.assert_close(ours.values, wanted.values)


def test_rows_of_any_size_are_screened(make_problem: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the margin of a row is no number, the whole product is made."""
    monkeypatch.setattr(bf16_screen, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(bf16_screen, "_LEAST_PRODUCTS", 1)
    x, W_enc, b_enc, b_dec = (t.float() for t in make_problem(20, 24, 500).encoder)
    b_enc, b_dec = torch.zeros_like(b_enc), torch.zeros_like(b_dec)
    for size in (1e-30, 1e-3, 1e15):
        arguments = (size * x, W_enc, b_enc, b_dec, 1)
        bound = torch.tensor(2.0 * size)
        ours = encode_topk(*arguments, above=bound, backend="cpu")
        wanted = encode_topk(*arguments, above=bound, backend="reference")
        assert wanted.used is not None and wanted.used.sum() > 1000
        torch.testing.assert_close(ours.values, wanted.values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"above": torch.zeros(3)}, r"above must be a scalar or \[d_sae = 60\], got shape \(3,\)"),
        ({"above": torch.tensor(1.0), "bank": 20}, "above goes neither with bank nor with indices"),
        ({"above": torch.tensor(float("nan"))}, "above has 1 NaN"),
    ],
)
def test_bounds_that_do_not_fit_are_named(
    options: dict[str, Any], message: str, make_problem: Make
) -> None:
    with pytest.raises(ArgumentError, match=message):
        encode_topk(*make_problem(3, 4, D_SAE).encoder, K, **options)


@pytest.mark.parametrize("support", ["narrow", "bank", "above"])
def test_a_graph_runs_the_definition(support: str, make_problem: Make) -> None:
    tensors = make_problem(9, 5, D_SAE).encoder

    def values(*tensors: Tensor) -> Tensor:
        return encode_topk(*tensors, K, **SUPPORTS[support]).values

    compiled = torch.compile(values, backend="eager")
    torch.testing.assert_close(compiled(*tensors), values(*tensors))
