"""encode_topk: every output and gradient against the float64 definition, at the same support."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import ArgumentError, encode_topk, reference, sparse_decode

Make = Callable[..., Any]
Close = Callable[..., None]

REGULARIZERS = [None, "off_support_l1", "l1_l2_ratio"]
NAMES = ("x", "W_enc", "b_enc", "b_dec")
SHAPES = [(41, 12, 201, 7), (1, 5, 33, 4), (17, 1, 9, 9), (64, 16, 1, 1), (33, 8, 700, 16)]


def gradients(problem: Any, k: int, backend: str, weight: torch.Tensor, **options: Any) -> Any:
    encoded = encode_topk(*problem.encoder, k, backend=backend, **options)
    upstream = weight.to(encoded.values.dtype)
    loss = (encoded.values * upstream).sum() + 0.7 * encoded.penalty
    return encoded, torch.autograd.grad(loss, problem.encoder, allow_unused=True)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "B{}-D{}-N{}-K{}".format(*s))
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["fp64", "fp32"]
)
def test_equals_the_definition(
    shape: tuple[int, int, int, int],
    regularizer: str | None,
    masked: bool,
    dtype: torch.dtype,
    tolerance: float,
    make_problem: Make,
    assert_close: Close,
) -> None:
    B, d_in, d_sae, k = shape
    problem = make_problem(B, d_in, d_sae)
    weight = torch.randn(B, k, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    options: dict[str, Any] = {"regularizer": regularizer, "batch_active_only": masked}
    fast, fast_grads = gradients(problem.leaves(dtype), k, "cpu", weight, **options)
    options |= {"indices": fast.indices, "batch_active": fast.batch_active}
    want, want_grads = gradients(problem.leaves(), k, "reference", weight, **options)
    assert_close("values", fast.values, want.values, tolerance)
    assert_close("penalty", fast.penalty, want.penalty, tolerance)
    for name, actual, expected in zip(NAMES, fast_grads, want_grads, strict=True):
        assert_close(f"d_{name}", actual, expected, tolerance)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_row_blocks_leave_no_seam(
    regularizer: str | None,
    make_problem: Make,
    assert_close: Close,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lightsae_kernels.cpu import encode, encode_gradient

    problem = make_problem(23, 6, 50)
    weight = torch.ones(23, 5)
    whole, whole_grads = gradients(problem.leaves(), 5, "cpu", weight, regularizer=regularizer)
    monkeypatch.setattr(encode, "PRODUCT_BYTES", 7 * 50 * 8)
    monkeypatch.setattr(encode, "PASS_BYTES", 3 * 50 * 8)
    monkeypatch.setattr(encode_gradient, "PASS_BYTES", 3 * 50 * 8)
    parts, part_grads = gradients(problem.leaves(), 5, "cpu", weight, regularizer=regularizer)
    assert torch.equal(whole.indices, parts.indices)
    assert_close("penalty", parts.penalty, whole.penalty, 1e-12)
    for name, actual, expected in zip(NAMES, part_grads, whole_grads, strict=True):
        assert_close(f"d_{name}", actual, expected, 1e-12)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_selection_and_mask_are_the_definition_with_ties(backend: str, make_problem: Make) -> None:
    problem = make_problem(40, 3, 120, grid=1.0)
    encoded = encode_topk(*problem.encoder, 9, backend=backend)
    a = reference.activations(*problem.encoder)
    assert torch.equal(encoded.indices, reference.select_topk(a, 9))
    assert encoded.batch_active.nonzero().squeeze(1).tolist() == encoded.indices.unique().tolist()


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_finite_differences_of_the_definition(regularizer: str, make_problem: Make) -> None:
    problem = make_problem(5, 4, 9).leaves()
    fixed = encode_topk(*problem.encoder, 3, backend="reference")

    def outputs(*encoder: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = encode_topk(
            *encoder, 3, regularizer=regularizer, indices=fixed.indices,
            batch_active=fixed.batch_active, backend="reference",
        )  # fmt: skip
        return code.values, code.penalty

    assert torch.autograd.gradcheck(outputs, problem.encoder)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_rows_without_a_positive_contribute_nothing(backend: str, make_problem: Make) -> None:
    problem = make_problem(6, 4, 30)
    problem = problem._replace(b_enc=torch.full((30,), -1e3, dtype=torch.float64)).leaves()
    encoded, grads = gradients(problem, 3, backend, torch.ones(6, 3), regularizer="l1_l2_ratio")
    assert encoded.penalty == 0
    assert encoded.indices.tolist() == [[0, 1, 2]] * 6
    assert all(not g.any() for g in grads)


def test_reg1_gives_selected_latents_no_gradient(make_problem: Make) -> None:
    problem = make_problem(1, 4, 8).leaves()
    encoded = encode_topk(
        *problem.encoder, 3, regularizer="off_support_l1", batch_active_only=False
    )
    (d_b_enc,) = torch.autograd.grad(encoded.penalty, [problem.b_enc])
    positive = reference.activations(*problem.encoder)[0] > 0
    positive[encoded.indices[0]] = False
    assert torch.equal(d_b_enc, positive.double())


def test_mask_removes_latents_that_no_sample_selects() -> None:
    x = torch.tensor([[1.0], [1.0]])
    W_enc = torch.tensor([[3.0], [2.0], [1.0]])
    zeros = torch.zeros(3), torch.zeros(1)
    masked = encode_topk(x, W_enc, *zeros, 1, regularizer="off_support_l1")
    whole = encode_topk(x, W_enc, *zeros, 1, regularizer="off_support_l1", batch_active_only=False)
    assert masked.batch_active.tolist() == [True, False, False]
    assert masked.penalty == 0
    assert whole.penalty == 3


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_an_empty_batch_has_zero_gradients(regularizer: str | None, make_problem: Make) -> None:
    problem = make_problem(0, 4, 10).leaves()
    encoded, grads = gradients(problem, 2, "cpu", torch.ones(0, 2), regularizer=regularizer)
    assert encoded.values.shape == (0, 2)
    assert encoded.penalty == 0
    assert not encoded.batch_active.any()
    assert all(not g.any() for g in grads)


def test_float16_overflow_of_finite_inputs_is_said() -> None:
    x, W_enc = torch.full((2, 64), 200.0).half(), torch.full((8, 64), 10.0).half()
    with pytest.raises(ValueError, match="pre-activations overflow float16"):
        encode_topk(x, W_enc, torch.zeros(8).half(), torch.zeros(64).half(), 2)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("position", range(4), ids=NAMES)
def test_nan_and_inf_are_named(backend: str, bad: float, position: int, make_problem: Make) -> None:
    arguments = [t.clone() for t in make_problem(4, 3, 8).encoder]
    arguments[position].view(-1)[1] = bad
    with pytest.raises(ValueError, match=f"{NAMES[position]} has 1 NaN or infinite"):
        encode_topk(*arguments, 2, backend=backend)


def test_large_finite_values_are_not_taken_for_inf() -> None:
    x = torch.full((2, 4), 3e38)
    assert (
        encode_topk(x, torch.eye(4) * 0.1, torch.zeros(4), torch.zeros(4), 2)
        .values.isfinite()
        .all()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 9}, "k must be an integer between 1 and d_sae = 8, got 9"),
        ({"k": 0}, "k must be an integer between 1"),
        ({"k": 2.0}, "k must be an integer between 1"),
        ({"k": True}, "k must be an integer between 1"),
        ({"x": torch.zeros(2, 3, 3)}, r"x must be \[B, d_in = 3\] \(flatten tokens first\)"),
        ({"b_enc": torch.zeros(7)}, r"b_enc must be \[d_sae = 8\], got shape \(7,\)"),
        ({"regularizer": "l2"}, "regularizer must be"),
        ({"backend": "cuda"}, "backend must be"),
        ({"indices": torch.full((4, 2), 8)}, "indices must lie in"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str, make_problem: Make) -> None:
    x, W_enc, b_enc, b_dec = make_problem(4, 3, 8).encoder
    arguments = {"x": x, "W_enc": W_enc, "b_enc": b_enc, "b_dec": b_dec, "k": 2} | change
    with pytest.raises(ValueError, match=message):
        encode_topk(**arguments)


def test_triton_on_a_cpu_tensor_raises(make_problem: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="needs CUDA tensors, got a CPU tensor"):
        encode_topk(*make_problem(4, 3, 8).encoder, 2, backend="triton")


@pytest.mark.parametrize("regularizer", ["off_support_l1", "l1_l2_ratio"])
@pytest.mark.parametrize("given", [False, True], ids=["selected", "given"])
def test_a_second_backward_makes_the_activations_once_more(
    given: bool, regularizer: Any, make_problem: Make
) -> None:
    problem = make_problem(4, 3, 8).leaves()
    indices = torch.tensor([[1, 6]] * 4) if given else None
    penalty = encode_topk(*problem.encoder, 2, regularizer=regularizer, indices=indices).penalty
    first = torch.autograd.grad(penalty, problem.encoder, retain_graph=True)
    second = torch.autograd.grad(penalty, problem.encoder)
    for name, one, other in zip(NAMES, first, second, strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_bfloat16_autocast_stays_near_float32(
    regularizer: str | None, make_problem: Make, assert_close: Close
) -> None:
    problem = make_problem(64, 16, 128).leaves(torch.float32)
    weight = torch.ones(64, 8)
    with torch.autocast("cpu", torch.bfloat16):
        low, low_grads = gradients(problem, 8, "cpu", weight, regularizer=regularizer)
    support = {"indices": low.indices, "batch_active": low.batch_active}
    full, full_grads = gradients(
        problem, 8, "reference", weight, regularizer=regularizer, **support
    )
    assert low.values.dtype == torch.bfloat16
    assert low.penalty.dtype == torch.float32
    # bfloat16 keeps 8 bits: 2^-8 for a rounded value, a few of them for a sum of products.
    assert_close("values", low.values, full.values, 2**-7)
    assert_close("penalty", low.penalty, full.penalty, 2**-7)
    for name, actual, expected in zip(NAMES, low_grads, full_grads, strict=True):
        assert actual.dtype == torch.float32
        assert_close(f"d_{name}", actual, expected, 2**-5)


def test_the_same_bits_every_time(make_problem: Make) -> None:
    problem = make_problem(200, 16, 256).leaves(torch.float32)

    def run() -> list[torch.Tensor]:
        code = encode_topk(*problem.encoder, 8, regularizer="l1_l2_ratio")
        x_hat = sparse_decode(code.values, code.indices, problem.W_dec, problem.b_dec)
        loss = (x_hat - problem.x).square().mean() + code.penalty
        return list(torch.autograd.grad(loss, problem))

    first = run()
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_without_gradients_the_scratch_buffer_goes_back(make_problem: Make) -> None:
    from lightsae_kernels.cpu import workspace

    workspace._free.clear()
    problem = make_problem(8, 3, 16).leaves(torch.float32)
    with torch.no_grad():
        encode_topk(*problem.encoder, 2, regularizer="l1_l2_ratio")
    assert any(buffer.numel() >= 8 * 16 for buffer in workspace._free[torch.float32])


@pytest.mark.parametrize("scale", [1e-17, 1.0, 1e14])
def test_the_gradient_of_reg_2_holds_at_any_scale(scale: float) -> None:
    W = torch.tensor([[3.0 * scale], [4.0 * scale]])
    x = torch.ones(1, 1)

    def gradient(dtype: torch.dtype, backend: Any) -> torch.Tensor:
        leaf = W.to(dtype).requires_grad_()
        zeros = torch.zeros(2, dtype=dtype), torch.zeros(1, dtype=dtype)
        encoded = encode_topk(
            x.to(dtype), leaf, *zeros, 1, regularizer="l1_l2_ratio", batch_active_only=False,
            eps=1e-30, backend=backend,
        )  # fmt: skip
        return torch.autograd.grad(encoded.penalty, leaf)[0] * scale

    torch.testing.assert_close(
        gradient(torch.float32, "cpu").double(), gradient(torch.float64, "reference"),
        rtol=1e-5, atol=0,
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_penalty_that_overflows_is_said(backend: Any) -> None:
    x, W = torch.ones(1, 1), torch.tensor([[1e20], [2e20]])
    with pytest.raises(ArgumentError, match="the penalty overflows float32: scale x down"):
        encode_topk(
            x, W, torch.zeros(2), torch.zeros(1), 1, regularizer="l1_l2_ratio",
            batch_active_only=False, backend=backend,
        )  # fmt: skip


@pytest.mark.parametrize("rows", [1, 3])
def test_reg_2_of_tiny_activations_has_a_gradient_in_float16(rows: int) -> None:
    W = torch.tensor([[3e-6], [4e-6]], dtype=torch.float16)
    x = torch.ones(rows, 1, dtype=torch.float16)

    def gradient(dtype: torch.dtype, backend: Any) -> torch.Tensor:
        leaf = torch.zeros(2, dtype=dtype, requires_grad=True)
        encoded = encode_topk(
            x.to(dtype), W.to(dtype), leaf, torch.zeros(1, dtype=dtype), 1, backend=backend,
            regularizer="l1_l2_ratio", batch_active_only=False,
        )  # fmt: skip
        return torch.autograd.grad(encoded.penalty, leaf)[0].double()

    expected = gradient(torch.float64, "reference")
    torch.testing.assert_close(gradient(torch.float16, "cpu"), expected, rtol=2e-3, atol=0)
