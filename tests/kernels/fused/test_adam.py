"""The optimizer's kernel against torch.optim, row by row and over many steps."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import (
    AdamSettings,
    ArgumentError,
    adam_step_,
    encode_residual,
    fault_flags,
    raise_if_flagged,
)
from lightsae_kernels.fault_flags import fault_on
from lightsae_kernels.quantized_moments import quantized_zeros
from torch import Tensor

from ..test_adam import (
    SETTINGS,
    UNIT_ROWS,
    Stepped,
    eight_bit_steps,
    problem,
    torch_steps,
)
from .conftest import INTERPRETED

adam = pytest.importorskip("lightsae_kernels.fused.adam")
# The interpreter cuts bf16 off instead of rounding it.
NARROW = torch.float16 if INTERPRETED else torch.bfloat16


@pytest.mark.parametrize(("N", "D"), [(41, 1), (70, 5), (17, 77), (9, 384), (3, 2100), (1, 8192)])
def test_ragged_widths(
    N: int, D: int, device: torch.device, assert_close: Callable[..., None]
) -> None:
    param, grads = problem(N, D, 3, torch.float32)
    settings = UNIT_ROWS._replace(project=D > 1)  # of one column the projection leaves nothing
    stepped = Stepped(param.to(device), settings, "triton", copy=NARROW)
    for grad in grads:
        stepped.step(grad.to(device))
        assert stepped.copy is not None
        assert torch.equal(stepped.copy, stepped.param.to(NARROW))
    assert_close("param", stepped.param.cpu(), torch_steps(param, grads, settings), 1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_hundred_steps(
    name: str, device: torch.device, assert_close: Callable[..., None]
) -> None:
    param, grads = problem(21, 77, 100, torch.float32)
    stepped = Stepped(param.to(device), SETTINGS[name], "triton")
    for grad in grads:
        stepped.step(grad.to(device))
    expected = torch_steps(param.double(), [grad.double() for grad in grads], SETTINGS[name])
    assert_close("param", stepped.param.cpu(), expected, 1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (1025,), (2, 3, 5), (2, 9000)], ids=str)
def test_any_shape_without_rows(shape: tuple[int, ...], device: torch.device) -> None:
    torch.manual_seed(0)
    param, grads = torch.randn(shape), [torch.randn(shape) for _ in range(3)]
    stepped = Stepped(param.to(device), AdamSettings(lr=0.1), "triton", copy=NARROW)
    for grad in grads:
        stepped.step(grad.to(device))
    torch.testing.assert_close(stepped.param.cpu(), torch_steps(param, grads, stepped.settings))
    assert stepped.copy is not None
    assert torch.equal(stepped.copy, stepped.param.to(NARROW))


def test_rows_without_a_gradient_stay_bit_for_bit(device: torch.device) -> None:
    param, grads = problem(33, 77, 3, torch.float32)
    param[::2] *= 1 + 1e-6
    stepped = Stepped(param.to(device), UNIT_ROWS, "triton", copy=NARROW)
    for grad in grads:
        grad[::2] = 0
        stepped.step(grad.to(device))
    assert torch.equal(stepped.param[::2].cpu(), param[::2])
    assert not stepped.exp_avg[::2].any()
    assert not stepped.exp_avg_sq[::2].any()
    assert stepped.copy is not None
    assert torch.equal(stepped.copy, stepped.param.to(NARROW))
    torch.testing.assert_close(stepped.param[1::2].norm(dim=1).cpu(), torch.ones(16))


def test_a_row_goes_on_moving_when_its_gradient_ends(device: torch.device) -> None:
    param, [grad] = problem(5, 77, 1, torch.float32)
    grads = [grad, torch.zeros_like(grad), torch.zeros_like(grad)]
    stepped = Stepped(param.to(device), UNIT_ROWS, "triton")
    for one in grads:
        stepped.step(one.to(device))
    torch.testing.assert_close(stepped.param.cpu(), torch_steps(param, grads, UNIT_ROWS))


def test_the_learning_rate_may_be_on_the_device(device: torch.device) -> None:
    param, [grad] = problem(5, 77, 1, torch.float32)
    made: list[Tensor] = []
    for lr in (1e-2, torch.tensor(1e-2, device=device), torch.tensor([1e-2], dtype=torch.float64)):
        stepped = Stepped(param.to(device), UNIT_ROWS._replace(lr=lr), "triton")
        stepped.step(grad.to(device))
        made.append(stepped.param)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    "dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
)
def test_narrow_parameters_and_moments(dtype: torch.dtype, device: torch.device) -> None:
    if dtype == torch.bfloat16 and INTERPRETED:
        pytest.skip("the interpreter cuts bf16 off instead of rounding it")
    param, grads = problem(9, 77, 3, torch.float32)
    made = []
    for backend in ("triton", "reference"):
        stepped = Stepped(param.to(dtype).to(device), UNIT_ROWS, backend)
        for grad in grads:
            stepped.step(grad.to(dtype).to(device))
        made.append(stepped)
    for name in ("param", "exp_avg", "exp_avg_sq"):
        actual, expected = (getattr(stepped, name).float() for stepped in made)
        # A rounding that falls to the other side, and what follows from it.
        bound = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 1e-3}
        torch.testing.assert_close(actual, expected, **bound, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 0.999999])
@pytest.mark.parametrize("step", [1, 2, 10, 1000, 10**6])
def test_bias_correction_keeps_its_digits(step: int, beta: float, device: torch.device) -> None:
    moment, param = torch.zeros(1, device=device), torch.zeros(1, device=device)
    count, grad = torch.tensor(float(step), device=device), torch.ones(1, device=device)
    settings = AdamSettings(lr=1.0, betas=(beta, 0.0), eps=1e-30)
    adam.adam_step_(param, grad, moment, torch.zeros(1, device=device), count, settings)
    expected = -(1 - beta) / -math.expm1(step * math.log(beta)) if beta else -1.0
    assert param.item() == pytest.approx(expected, rel=1e-6)


def test_the_same_input_gives_the_same_bits(device: torch.device) -> None:
    param, grads = problem(33, 384, 2, torch.float32)
    made = []
    for _ in range(2):
        stepped = Stepped(param.to(device), UNIT_ROWS, "triton")
        for grad in grads:
            stepped.step(grad.to(device))
        made.append(stepped.param)
    assert torch.equal(*made)


@pytest.mark.gpu
def test_a_captured_step_goes_on_counting(device: torch.device) -> None:
    if INTERPRETED:
        pytest.skip("needs a GPU")
    param, [grad] = problem(33, 384, 1, torch.float32)
    eager, captured = (Stepped(param.to(device), UNIT_ROWS, "triton") for _ in range(2))
    on_device = grad.to(device)
    for stepped in (eager, captured):
        stepped.step(on_device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step(on_device)
    for _ in range(3):
        graph.replay()
        eager.step(on_device)
    assert torch.equal(eager.param, captured.param)


def test_autograd_sees_the_step(device: torch.device) -> None:
    param = torch.ones(2, 3, device=device, requires_grad=True)
    loss = param.square().sum()
    grad, *moments = (torch.ones(2, 3, device=device) for _ in range(3))
    with torch.no_grad():
        adam.adam_step_(param, grad, *moments, torch.ones((), device=device), AdamSettings())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_rows_too_wide_are_refused(device: torch.device) -> None:
    param, [grad] = problem(1, 8193, 1, torch.float32)
    stepped = Stepped(param.to(device), UNIT_ROWS, "triton")
    with pytest.raises(ValueError, match="d_in is larger than 8192"):
        stepped.step(grad.to(device))


@pytest.mark.parametrize(("N", "D"), [(41, 1), (17, 77), (9, 384), (3, 2100)])
def test_eight_bit_moments(N: int, D: int, device: torch.device) -> None:
    param, grads = problem(N, D, 4, torch.float32)
    settings = UNIT_ROWS._replace(project=D > 1)
    grads = [grad.to(device) for grad in grads]
    for grad in grads:
        grad[::2] = 0
    found = eight_bit_steps(param.to(device), grads, settings, "triton", NARROW)
    expected = eight_bit_steps(param.to(device), grads, settings, "reference")
    assert found.copy is not None
    assert torch.equal(found.copy, found.param.to(NARROW))
    # A number at the border of the dither may become either of two codes.
    apart = ~torch.isclose(found.param, expected.param, rtol=1e-4, atol=1e-6)
    assert apart.float().mean() < 1e-3
    for name in ("exp_avg", "exp_avg_sq"):
        codes, scales = getattr(found, name)
        other_codes, other_scales = getattr(expected, name)
        torch.testing.assert_close(scales, other_scales, rtol=1e-5, atol=0)
        apart = (codes.int() - other_codes.int()).abs()
        assert apart.amax() <= 1
        assert apart.float().mean() < 1e-3
    assert not found.exp_avg.codes[::2].any()


@pytest.mark.parametrize("eight_bit", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_nothing_is_written_while_the_fault_is_set(
    decay: float, eight_bit: bool, device: torch.device
) -> None:
    param, grads = problem(9, 300, 2, torch.float32)
    settings = UNIT_ROWS._replace(weight_decay=decay)
    param, (first, second) = param.to(device), [grad.to(device) for grad in grads]
    shape = torch.empty_like(param)
    moments = (
        (quantized_zeros(shape, torch.int8), quantized_zeros(shape, torch.uint8))
        if eight_bit
        else (torch.zeros_like(param), torch.zeros_like(param))
    )
    copy, step = param.to(NARROW), torch.ones((), device=device)

    def run(grad: Tensor) -> list[Tensor]:
        adam.adam_step_(param, grad, *moments, step, settings, copy)
        parts = [t for m in moments for t in (m if eight_bit else (m,))]
        return [t.clone() for t in (param, copy, *parts)]

    before, fault = run(first), fault_on(param.device)
    fault.fill_(1)
    try:
        assert all(torch.equal(b, a) for b, a in zip(before, run(second), strict=True))
        assert all(torch.equal(b, a) for b, a in zip(before, run(second * torch.nan), strict=True))
    finally:
        fault.zero_()
    assert not torch.equal(before[0], run(second)[0])


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("where", ["x", "W_enc", "b_enc", "W_dec"])
def test_a_step_of_a_batch_with_nan_changes_nothing_before_somebody_looks(
    where: str, device: torch.device, make_problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a GPU: the arguments are not looked at, and the host is ahead of the kernels.
    monkeypatch.setattr("lightsae_kernels.encode.finds_faults", lambda *arguments: True)
    made = make_problem(12, 6, 30)
    leaves = {
        name: getattr(made, name).float().to(device).requires_grad_(name != "x")
        for name in ("x", "W_enc", "b_enc", "W_dec", "b_dec")
    }
    parameters = [t for t in leaves.values() if t.requires_grad]
    moments = [(torch.ones_like(t), torch.ones_like(t)) for t in parameters]

    def step() -> None:
        encoded, left = encode_residual(
            *leaves.values(), 4, regularizer="l1_l2_ratio", backend="triton"
        )
        grads = torch.autograd.grad(left.error.mean() + encoded.penalty, parameters)
        for tensor, grad, (m, v) in zip(parameters, grads, moments, strict=True):
            one = torch.ones((), device=device)
            adam_step_(tensor, grad, m, v, one, AdamSettings(lr=0.1), backend="triton")

    def state() -> list[Tensor]:
        return [t.detach().clone() for t in (*parameters, *(m for pair in moments for m in pair))]

    step()
    before, kept = state(), leaves[where].detach().clone()
    with torch.no_grad():
        # Of the decoder only selected rows are read.
        leaves[where][..., 3] = torch.nan
    marked = state()
    with monkeypatch.context() as ahead:
        ahead.setattr(fault_flags, "_raise_if_set", lambda device: None)
        step()
    for one, other in zip(marked, state(), strict=True):
        assert torch.equal(one.nan_to_num(7e7), other.nan_to_num(7e7))
    with pytest.raises(ArgumentError, match="met NaN, inf or an index"):
        raise_if_flagged()
    with torch.no_grad():
        leaves[where].copy_(kept)
    step()
    assert not torch.equal(before[0], state()[0])
    raise_if_flagged()
