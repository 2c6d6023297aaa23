"""The fused encode_topk: outputs and gradients against the float64 definition, at its support."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import ArgumentError, encode_topk, memory, raise_if_flagged, reference
from lightsae_kernels.encode_plan import EncodePlan
from lightsae_kernels.types import Encoder

from ..conftest import DTYPES, INTERPRETED
from .encode_cases import NAMES, PENALTIES, REGULARIZERS, Close, Make, leaves, run

fused = pytest.importorskip("lightsae_kernels.fused")
from lightsae_kernels.fused import select, tile_configs  # noqa: E402

SHAPES = [(41, 12, 201, 7), (1, 5, 33, 4), (17, 1, 9, 9), (35, 70, 130, 1)]


# One rounding of a product of the dtype, times the square root of a hundred terms.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def assert_equals_the_definition(tensors: Any, k: int, assert_close: Close, **options: Any) -> None:
    tolerance = TOLERANCE[tensors[0].dtype]
    ours, our_grads = run(tensors, k, "triton", **options)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    options |= {"indices": ours.indices, "batch_active": ours.batch_active}
    want, want_grads = run(exact, k, "reference", **options)
    assert_close("values", ours.values, want.values, tolerance)
    assert_close("penalty", ours.penalty, want.penalty, tolerance)
    for name, actual, expected in zip(NAMES, our_grads, want_grads, strict=True):
        assert_close(f"d_{name}", actual, expected, tolerance)


@pytest.fixture
def check(
    regularizer: str | None,
    masked: bool,
    dtype: torch.dtype,
    way: str,
    device: torch.device,
    assert_close: Close,
) -> Callable[[Any, int], None]:
    """Compare a problem in one dtype and with one penalty with the definition."""

    def compare(problem: Any, k: int) -> None:
        options: dict[str, Any] = {"regularizer": regularizer, "batch_active_only": masked}
        assert_equals_the_definition(leaves(problem, dtype, device), k, assert_close, **options)

    return compare


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("regularizer", "masked"), PENALTIES)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "B{}-D{}-N{}-K{}".format(*s))
def test_equals_the_definition(
    shape: tuple[int, int, int, int], check: Callable[[Any, int], None], make_problem: Make
) -> None:
    B, d_in, d_sae, k = shape
    check(make_problem(B, d_in, d_sae), k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("regularizer", "masked"), PENALTIES)
def test_aligned_sizes_with_whole_tiles_of_inactive_latents_equal_the_definition(
    check: Callable[[Any, int], None], dtype: torch.dtype, device: torch.device, make_problem: Make
) -> None:
    problem = make_problem(48, 64, 256)
    # None of these is ever selected, though some are positive now and then.
    problem.b_enc[64:192] -= 27
    tensors = leaves(problem, dtype, device)
    encoded = encode_topk(*tensors, 8, backend="triton")
    tiles = encoded.batch_active.view(-1, tile_configs.INTERPRETED.block_b)
    assert not tiles[4:12].any()
    assert (reference.activations(*tensors)[:, 64:192] > 0).any()
    check(problem, 8)


@pytest.mark.skipif(not INTERPRETED, reason="test_production_tiles.py has them compiled")
@pytest.mark.parametrize(
    ("arch", "row", "d_in", "regularizer", "masked"),
    [
        (80, 0, 64, "off_support_l1", False),
        (80, 1, 80, "l1_l2_ratio", True),
        (90, 0, 128, "off_support_l1", True),
        (90, 1, 80, None, True),
        (100, 1, 128, "l1_l2_ratio", False),
    ],
)
def test_tiles_of_a_gpu_equal_the_definition(
    arch: int,
    row: int,
    d_in: int,
    regularizer: str | None,
    masked: bool,
    make_problem: Make,
    assert_close: Close,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tile_configs, "INTERPRETED_PRODUCT", tile_configs.PRODUCT[arch][row])
    gradient = tile_configs.GRADIENT[arch, 2][0] if d_in % 64 == 0 else tile_configs.RAGGED
    monkeypatch.setattr(tile_configs, "INTERPRETED", gradient)
    tensors = leaves(make_problem(150, d_in, 301), torch.float16, torch.device("cpu"))
    options: dict[str, Any] = {"regularizer": regularizer, "batch_active_only": masked}
    assert_equals_the_definition(tensors, 6, assert_close, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_selects_what_the_definition_selects_among_its_own_activations(
    dtype: torch.dtype, way: str, device: torch.device, make_problem: Make
) -> None:
    tensors = [t.to(dtype).to(device) for t in make_problem(40, 3, 120, grid=1.0).encoder]
    encoded = encode_topk(*tensors, 9, backend="triton")
    # On this grid every product is exact in every dtype, ties included.
    expected = reference.select_topk(reference.activations(*tensors), 9)
    assert torch.equal(encoded.indices, expected)
    assert encoded.batch_active.nonzero().squeeze(1).tolist() == expected.unique().tolist()


def test_an_empty_batch_has_an_empty_code(device: torch.device, make_problem: Make) -> None:
    tensors = [t.float().to(device) for t in make_problem(0, 4, 30).encoder]
    encoded = encode_topk(*tensors, 3, regularizer="l1_l2_ratio", backend="triton")
    assert encoded.values.shape == encoded.indices.shape == (0, 3)
    assert encoded.penalty == 0
    assert not encoded.batch_active.any()


def test_groups_as_wide_as_a_tile(device: torch.device, make_problem: Make) -> None:
    tensors = [t.float().to(device) for t in make_problem(2, 2, 17_000, grid=1.0).encoder]
    encoded = encode_topk(*tensors, 1, backend="triton")
    assert select.group_size(17_000, 1) == 64
    expected = reference.select_topk(reference.activations(*tensors), 1)
    assert torch.equal(encoded.indices, expected)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_a_given_support_is_used(
    regularizer: str | None, way: str, device: torch.device, make_problem: Make,
    assert_close: Close,
) -> None:  # fmt: skip
    tensors = [t.float().to(device) for t in make_problem(9, 4, 30).encoder]
    given = {
        "indices": torch.tensor([[29, 3, 7]] * 9, device=device),
        "batch_active": torch.arange(30, device=device) % 2 == 0,
    }
    ours = encode_topk(*tensors, 3, regularizer=regularizer, backend="triton", **given)
    exact = [t.double() for t in tensors]
    want = encode_topk(*exact, 3, regularizer=regularizer, backend="reference", **given)
    assert ours.indices is given["indices"]
    assert_close("values", ours.values, want.values, 2e-6)
    assert_close("penalty", ours.penalty, want.penalty, 2e-6)


@pytest.mark.parametrize("given", [[[3, 3, 1]], [[0, 0, 1]], [[2, 0, 1]]], ids=str)
@pytest.mark.parametrize("masked", [True, False])
def test_a_given_support_may_repeat_a_latent(
    masked: bool, given: list[list[int]], device: torch.device, make_problem: Make,
    assert_close: Close,
) -> None:  # fmt: skip
    d_sae = max(3, max(given[0]) + 1)
    tensors = leaves(make_problem(7, 4, d_sae), torch.float32, device)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    options: dict[str, Any] = {"regularizer": "off_support_l1", "batch_active_only": masked}
    options["indices"] = torch.tensor(given * 7, device=device)
    ours, grads = run(tensors, 3, "triton", **options)
    want, want_grads = run(exact, 3, "reference", **options)
    # A penalty of 0 is a difference of sums, whose rounding is left.
    rounding = 1e-7 * want.values.sum() / want.values.shape[0]
    assert (ours.penalty.double() - want.penalty).abs() <= 1e-5 * want.penalty + rounding
    for name, one, other in zip(NAMES, grads, want_grads, strict=True):
        assert_close(f"d_{name}", one, other, 1e-5)


def test_the_gradient_of_the_values_may_be_strided(
    device: torch.device, make_problem: Make, assert_close: Close
) -> None:
    def gradients(backend: str, dtype: torch.dtype) -> Any:
        tensors = [t.to(dtype) for t in leaves(make_problem(9, 4, 30), torch.float32, device)]
        tensors = [t.detach().requires_grad_() for t in tensors]
        encoded = encode_topk(*tensors, 3, backend=backend)
        weights = torch.arange(27.0, device=device).view(3, 9).to(dtype)
        return torch.autograd.grad((encoded.values.t() * weights).sum(), tensors)

    pairs = zip(
        gradients("triton", torch.float32), gradients("reference", torch.float64), strict=True
    )
    for name, (one, other) in zip(NAMES, pairs, strict=True):
        assert_close(f"d_{name}", one, other, 2e-6)


def test_gradients_do_not_depend_on_where_they_are_asked_for(
    device: torch.device, make_problem: Make
) -> None:
    def gradients(default: torch.dtype, autocast: bool) -> Any:
        tensors = leaves(make_problem(9, 4, 30), torch.float32, device)
        torch.set_default_dtype(default)
        try:
            encoded = encode_topk(*tensors, 3, regularizer="l1_l2_ratio", backend="triton")
            loss = encoded.values.sum() + encoded.penalty
            with torch.autocast(device.type, torch.float16, enabled=autocast):
                return torch.autograd.grad(loss, tensors)
        finally:
            torch.set_default_dtype(torch.float32)

    expected = gradients(torch.float32, False)
    for found in (gradients(torch.float64, False), gradients(torch.float32, True)):
        for name, one, other in zip(NAMES, found, expected, strict=True):
            assert torch.equal(one, other), name


@pytest.mark.parametrize("layout", ["transposed", "expanded"])
def test_a_given_support_may_be_strided(
    layout: str, device: torch.device, make_problem: Make
) -> None:
    tensors = [t.float().to(device) for t in make_problem(9, 4, 30).encoder]
    indices = torch.tensor([[29, 3, 7]], device=device).expand(9, 3)
    if layout == "transposed":
        indices = torch.arange(27, device=device).view(9, 3).t().contiguous().t()
    ours = encode_topk(*tensors, 3, indices=indices, backend="triton")
    expected = reference.activations(*tensors).gather(1, indices)
    torch.testing.assert_close(ours.values, expected)


def test_strided_and_misaligned_operands(
    device: torch.device, make_problem: Make, assert_close: Close
) -> None:
    problem = make_problem(19, 16, 50)

    def views(tensor: torch.Tensor) -> torch.Tensor:
        flat = torch.zeros(2 * tensor.numel() + 1, device=device)
        view = flat[1::2].view(tensor.shape)
        return view.copy_(tensor)

    tensors = [views(t) for t in problem.encoder]
    tensors[1] = problem.W_enc.float().to(device).t().contiguous().t()
    ours = encode_topk(*tensors, 5, backend="triton")
    exact = [t.double() for t in tensors]
    want = encode_topk(*exact, 5, indices=ours.indices, backend="reference")
    assert_close("values", ours.values, want.values, 2e-6)


def test_autocast_computes_what_the_definition_computes_under_it(
    device: torch.device, make_problem: Make, assert_close: Close
) -> None:
    # Far from zero, as activations are: centring must come before the cast, in both directions.
    problem = make_problem(30, 8, 40)
    problem.x.add_(50), problem.b_dec.add_(50)
    tensors = [t.float().to(device).requires_grad_() for t in problem.encoder]
    with torch.autocast(device.type, torch.float16):
        ours, our_grads = run(tensors, 4, "triton", regularizer="l1_l2_ratio")
    assert ours.values.dtype == torch.float16
    exact = [t.detach().double().requires_grad_() for t in tensors]
    support = {"indices": ours.indices, "batch_active": ours.batch_active}
    want, grads = run(exact, 4, "reference", regularizer="l1_l2_ratio", **support)
    assert_close("values", ours.values, want.values, 2e-3)
    for name, actual, expected in zip(NAMES, our_grads, grads, strict=True):
        assert actual.dtype == torch.float32
        assert_close(f"d_{name}", actual, expected, 5e-3)


def test_the_largest_k_and_the_widest_rows(
    device: torch.device, make_problem: Make, assert_close: Close
) -> None:
    for B, d_in, d_sae, k in ((2, 3, 600, 512), (2, 8192, 40, 3)):
        tensors = [t.float().to(device) for t in make_problem(B, d_in, d_sae).encoder]
        ours = encode_topk(*tensors, k, backend="triton")
        exact = [t.double() for t in tensors]
        want = encode_topk(*exact, k, indices=ours.indices, backend="reference")
        assert_close("values", ours.values, want.values, 1e-5)


def test_nothing_is_off_a_support_of_everything(device: torch.device, make_problem: Make) -> None:
    for seed in range(5):
        tensors = [t.float().to(device) for t in make_problem(17, 3, 9, seed=seed).encoder]
        encoded = encode_topk(*tensors, 9, regularizer="off_support_l1", backend="triton")
        assert encoded.penalty == 0


def test_a_mask_of_another_dtype_is_refused(device: torch.device, make_problem: Make) -> None:
    tensors = [t.float().to(device) for t in make_problem(4, 3, 8).encoder]
    with pytest.raises(ArgumentError, match=r"batch_active must be bool, got torch\.float32"):
        encode_topk(*tensors, 2, batch_active=torch.ones(8, device=device), backend="triton")


def test_rows_without_a_positive_contribute_nothing(
    device: torch.device, make_problem: Make
) -> None:
    tensors = [t.float().to(device) for t in make_problem(6, 4, 30).encoder]
    tensors[2].fill_(-1e3)
    encoded = encode_topk(*tensors, 3, regularizer="l1_l2_ratio", backend="triton")
    assert encoded.penalty == 0
    assert encoded.indices.tolist() == [[0, 1, 2]] * 6


# The interpreter is numpy, which warns where a GPU computes NaN and stores inf.
@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("argument", NAMES)
def test_the_kernels_see_nan_and_inf(
    argument: str, value: float, way: str, device: torch.device, make_problem: Make
) -> None:
    tensors = [t.float().to(device) for t in make_problem(6, 4, 30).encoder]
    tensors[NAMES.index(argument)].view(-1)[3] = value
    with pytest.raises(ArgumentError, match="encode_topk met NaN, inf or an index"):
        # Past the checks that CPU tensors get.
        x, W_enc, b_enc, b_dec = tensors
        plan = EncodePlan(3, x.dtype)
        fused.encode_forward(fused.centre(x, b_dec, x.dtype), Encoder(W_enc, b_enc), plan)
        raise_if_flagged()
    raise_if_flagged()


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_an_overflow_of_the_product_is_told(
    way: str, device: torch.device, make_problem: Make
) -> None:
    tensors = [(300 * t).half().to(device) for t in make_problem(6, 20, 30).encoder]
    with pytest.raises(ArgumentError, match="overflow"):
        encode_topk(*tensors, 3, backend="triton")
        raise_if_flagged()


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_reg_2_of_a_row_of_tiny_activations_has_a_gradient_in_float16(
    recompute: bool, device: torch.device, make_problem: Make, assert_close: Close
) -> None:
    problem = make_problem(6, 4, 30)
    x, W_enc, b_enc, _ = problem.encoder
    tensors = [x.half(), (W_enc * 1e-6).half(), b_enc * 0, torch.zeros(4)]
    tensors[0][1:] *= 300
    found = {}
    for dtype, backend in ((torch.float16, "triton"), (torch.float64, "reference")):
        at = [t.to(dtype).to(device).requires_grad_() for t in tensors]
        with memory.bounded(recompute=recompute):
            penalty = encode_topk(*at, 30, regularizer="l1_l2_ratio", backend=backend).penalty
            # The gradient itself fits into float16; alpha, before it is scaled, does not.
            found[backend] = torch.autograd.grad(penalty, at[:3], torch.full_like(penalty, 1e-3))
    # Activations of a few units of the smallest float16: a hundredth of them is lost in storing.
    for name, actual, expected in zip(NAMES, found["triton"], found["reference"], strict=False):
        assert expected.abs().amax() > 1 or name == "x"
        assert_close(f"d_{name}", actual, expected, 0.1)


@pytest.mark.parametrize("k", [513], ids=["k513"])
def test_what_no_kernel_serves_is_said(k: int, device: torch.device, make_problem: Make) -> None:
    tensors = [t.float().to(device) for t in make_problem(2, 3, 600).encoder]
    with pytest.raises(ArgumentError, match="k is larger than 512"):
        encode_topk(*tensors, k, backend="triton")


def test_a_latent_on_every_sample_and_latents_on_none(
    device: torch.device, make_problem: Make, assert_close: Close
) -> None:
    problem = make_problem(150, 3, 12)
    problem.b_enc[5] = 50.0
    problem.b_enc[7:] = -50.0
    tensors = leaves(problem, torch.float32, device)
    ours, our_grads = run(tensors, 2, "triton", regularizer="l1_l2_ratio")
    assert (ours.indices == 5).any(dim=1).all()
    exact = [t.detach().double().requires_grad_() for t in tensors]
    options = {"indices": ours.indices, "batch_active": ours.batch_active}
    _, grads = run(exact, 2, "reference", regularizer="l1_l2_ratio", **options)
    for name, actual, expected in zip(NAMES, our_grads, grads, strict=True):
        assert_close(f"d_{name}", actual, expected, 5e-6)
    assert not our_grads[1][8:].any()


def test_the_mask_and_a_fault_are_of_all_ranks(
    device: torch.device, make_problem: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = [t.float().to(device) for t in make_problem(4, 3, 40).encoder]
    alone = encode_topk(*tensors, 2, backend="triton").batch_active
    (never, *_) = (~alone).nonzero().squeeze(1).tolist()

    def another_rank(found: torch.Tensor, **options: Any) -> None:
        assert found.shape == (41,)
        assert not found[-1]
        found[never] = found[-1] = 1

    monkeypatch.setattr("torch.distributed.all_reduce", another_rank)
    group: Any = object()
    united = encode_topk(*tensors, 2, process_group=group, backend="triton").batch_active
    assert united[never]
    assert (united != alone).sum() == 1
    with pytest.raises(ArgumentError, match="another process met NaN, inf"):
        raise_if_flagged()
    raise_if_flagged()
