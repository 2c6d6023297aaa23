"""SAEAdam: moments in fewer bits, and states that are saved and gone on from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightsae_kernels import Quantized
from lightsae_kernels.quantized_moments import dequantize
from torch import nn

from lightsae.errors import LightsaeError
from lightsae.training import SAEAdam

from .stepped import autoencoder, draw_gradients, ours, relative


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "int8"])
def test_a_reload_goes_on_in_the_same_bits(
    state_dtype: Any, dtype: torch.dtype, tmp_path: Path
) -> None:
    whole, stopped = autoencoder().to(dtype), autoencoder().to(dtype)
    optimizers = [ours(sae, state_dtype=state_dtype) for sae in (whole, stopped)]
    for step in range(6):
        for sae, optimizer in zip((whole, stopped), optimizers, strict=True):
            draw_gradients(sae, step)
            optimizer.step()
        if step == 2:
            torch.save(optimizers[1].state_dict(), tmp_path / "state")
            optimizers[1] = ours(stopped)
            optimizers[1].load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    moments = [optimizers[0].state[whole.W_enc], optimizers[1].state[stopped.W_enc]]
    first = "exp_avg_codes" if state_dtype == "int8" else "exp_avg"
    assert moments[1][first].dtype == getattr(torch, state_dtype)
    assert set(moments[0]) == set(moments[1])
    for name, value in moments[0].items():
        assert value.dtype == moments[1][name].dtype
        assert torch.equal(value, moments[1][name]), name
    for (name, p), q in zip(whole.named_parameters(), stopped.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_it_goes_on_from_torch_and_torch_from_it() -> None:
    saes = autoencoder(), autoencoder()
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(saes[0].parameters(), lr=1e-2), SAEAdam(saes[1].parameters(), lr=1e-2)
    ]  # fmt: skip
    for step in range(6):
        for sae, optimizer in zip(saes, optimizers, strict=True):
            draw_gradients(sae, step)
            optimizer.step()
        if step == 2:
            states = [optimizer.state_dict() for optimizer in optimizers]
            optimizers[0].load_state_dict(states[1])
            optimizers[1].load_state_dict(states[0])
    for (name, p), q in zip(saes[0].named_parameters(), saes[1].parameters(), strict=True):
        assert relative(q, p) < 1e-6, name


def test_bfloat16_moments_stay_near_float32_ones() -> None:
    start = autoencoder()
    wide, narrow = autoencoder(), autoencoder()
    options = {"betas": (0.9, 0.99)}
    optimizers = ours(wide, **options), ours(narrow, state_dtype="bfloat16", **options)
    for step in range(100):
        for sae, optimizer in zip((wide, narrow), optimizers, strict=True):
            draw_gradients(sae, step)
            optimizer.step()
    for (name, p), q, origin in zip(
        wide.named_parameters(), narrow.parameters(), start.parameters(), strict=True
    ):
        # A moment keeps eight bits: each step is off by up to 0.4%, and gradients follow no step.
        assert ((q - p).norm() / (p - origin).norm()).item() < 0.01, name


def test_moments_in_8_bits_stay_near_float32_ones() -> None:
    start, wide, narrow = autoencoder(), autoencoder(), autoencoder()
    optimizers = ours(wide), ours(narrow, state_dtype="int8")
    for step in range(200):
        for sae, optimizer in zip((wide, narrow), optimizers, strict=True):
            draw_gradients(sae, step)
            optimizer.step()
    for (name, p), q, origin in zip(
        wide.named_parameters(), narrow.parameters(), start.parameters(), strict=True
    ):
        # Codes are 3% apart and more; gradients at random follow no step and correct nothing.
        assert ((q - p).norm() / (p - origin).norm()).item() < 0.1, name


def test_a_second_moment_in_8_bits_falls_as_in_32() -> None:
    found = {}
    for state_dtype in ("float32", "int8"):
        parameter = nn.Parameter(torch.ones(1, 64))
        optimizer = SAEAdam([parameter], betas=(0.9, 0.999), state_dtype=state_dtype)
        for step in range(1000):
            parameter.grad = torch.ones(1, 64)
            parameter.grad[0, 1:] *= 1.0 if step == 0 else 0.1
            optimizer.step()
        state = optimizer.state[parameter]
        found[state_dtype] = (
            dequantize(Quantized(state["exp_avg_sq_codes"], state["exp_avg_sq_scales"]))
            if state_dtype == "int8" else state["exp_avg_sq"]
        )[0, 1:].mean().item()  # fmt: skip
    assert found["int8"] == pytest.approx(found["float32"], rel=0.05)


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "int8"])
def test_a_compiled_step_ends_in_the_same_bits(state_dtype: Any) -> None:
    weights = [nn.Parameter(torch.eye(8, 4)) for _ in range(2)]
    eager, other = (SAEAdam([weight], state_dtype=state_dtype) for weight in weights)
    compiled = torch.compile(other.step, backend="aot_eager")
    for seed in range(3):
        torch.manual_seed(seed)
        weights[0].grad = torch.randn(8, 4)
        weights[1].grad = weights[0].grad.clone()
        eager.step()
        compiled()
    assert torch.equal(weights[0], weights[1])


def test_codes_take_a_quarter_of_the_memory_of_the_matrices() -> None:
    parameters = [nn.Parameter(torch.ones(*shape)) for shape in ((8, 512), (512,))]
    optimizer = SAEAdam(parameters, state_dtype="int8")
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    matrix, vector = (optimizer.state[parameter] for parameter in parameters)
    assert sum(t.nbytes for t in matrix.values()) == 2 * 8 * (512 + 2 * 4) + 4
    assert vector["exp_avg"].dtype == torch.float32


@pytest.mark.parametrize(("beta", "falls"), [(0.99, True), (0.999, False)])
def test_a_slow_second_moment_in_bfloat16_never_falls(beta: float, falls: bool) -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = SAEAdam([parameter], betas=(0.9, beta), state_dtype="bfloat16")
    seen = []
    for gradient in (10.0, *[0.0] * 50):
        parameter.grad = torch.tensor([gradient])
        optimizer.step()
        seen.append(optimizer.state[parameter]["exp_avg_sq"].item())
    assert (seen[-1] < 0.8 * seen[0]) == falls
    assert (seen[-1] == seen[0]) != falls


@pytest.mark.parametrize("name", ["amsgrad", "maximize"])
def test_a_state_of_another_algorithm_is_refused(name: str) -> None:
    parameters = [nn.Parameter(torch.ones(1))]
    saved = torch.optim.Adam(parameters, **{name: True}).state_dict()
    with pytest.raises(LightsaeError, match=f"{name} is nothing that SAEAdam does"):
        SAEAdam(parameters).load_state_dict(saved)


def test_a_state_that_cannot_be_gone_on_from_is_refused() -> None:
    W = nn.Parameter(torch.ones(3, 4))
    momentum = torch.optim.SGD([W], lr=0.1, momentum=0.9)
    W.sum().backward()
    momentum.step()
    state = SAEAdam([W]).state_dict() | {"state": momentum.state_dict()["state"]}
    with pytest.raises(LightsaeError, match="has momentum_buffer: it is of another optimizer"):
        SAEAdam([W]).load_state_dict(state)
    wide = nn.Parameter(torch.ones(3, 5))
    wide.grad = torch.ones(3, 5)
    other = SAEAdam([wide])
    other.step()
    with pytest.raises(LightsaeError, match=r"exp_avg of parameter 0 has shape \(3, 5\), the para"):
        SAEAdam([W]).load_state_dict(other.state_dict())


def test_an_old_state_with_a_counter_that_is_a_number_goes_on() -> None:
    W = nn.Parameter(torch.ones(3, 4))
    W.grad = torch.ones(3, 4)
    optimizer = SAEAdam([W])
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0]["step"] = 1
    again = SAEAdam([W])
    again.load_state_dict(state)
    again.step()
    assert again.state[W]["step"] == torch.tensor(2.0)


@pytest.mark.parametrize("made", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("loaded", ["float32", "bfloat16", "int8"])
def test_a_group_says_in_which_dtype_its_moments_are(made: Any, loaded: Any) -> None:
    W = nn.Parameter(torch.ones(3, 4))
    W.grad = torch.ones(3, 4)
    other = SAEAdam([W], state_dtype=loaded)
    assert other.param_groups[0]["state_dtype"] == loaded
    other.step()
    optimizer = SAEAdam([W], state_dtype=made)
    optimizer.load_state_dict(other.state_dict())
    assert optimizer.param_groups[0]["state_dtype"] == loaded


def test_a_learning_rate_stays_where_a_graph_reads_it() -> None:
    W = nn.Parameter(torch.ones(3, 4))
    saved = SAEAdam([W], lr=torch.tensor(0.25)).state_dict()
    optimizer = SAEAdam([W], lr=torch.tensor(1.0, device="meta"))
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"].device.type == "meta"
    plain = SAEAdam([W])
    plain.load_state_dict(saved)
    assert plain.param_groups[0]["lr"] == 0.25
    assert isinstance(plain.param_groups[0]["lr"], float)


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "int8"])
def test_a_gradient_too_large_to_square_leaves_finite_weights(state_dtype: Any) -> None:
    W = nn.Parameter(torch.ones(2, 300))
    optimizer = SAEAdam([W], state_dtype=state_dtype)
    for size in (1e30, 1.0, 1.0):
        W.grad = torch.ones(2, 300)
        W.grad[0, 7] = size
        optimizer.step()
    assert bool(W.isfinite().all())
    assert bool((W[1] < 1).all())
