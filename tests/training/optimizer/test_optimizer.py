"""SAEAdam: torch's Adam with the decoder's treatment inside."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from lightsae_kernels import ArgumentError, NarrowCopy
from torch import Tensor, nn
from torch.nn import functional as F

from lightsae.errors import LightsaeError
from lightsae.sae import L1L2Ratio, objective
from lightsae.training import SAEAdam, WarmupDecay

from .stepped import autoencoder, draw_gradients, ours, relative


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("decoupled", [False, True])
def test_a_hundred_steps_with_a_reload_equal_adam_with_its_hooks(
    decay: float, decoupled: bool
) -> None:
    options = {"weight_decay": decay, "decoupled_weight_decay": decoupled}
    expected, fused = autoencoder(), autoencoder()
    adam = torch.optim.Adam(expected.parameters(), lr=1e-2, **options)
    optimizer = ours(fused, **options)
    for step in range(100):
        draw_gradients(expected, step)
        draw_gradients(fused, step)
        expected.project_decoder_gradient_()
        adam.step()
        expected.normalize_decoder_()
        optimizer.step()
        if step == 50:
            saved = optimizer.state_dict()
            optimizer = ours(fused, **options)
            optimizer.load_state_dict(saved)
    for (name, p), q in zip(expected.named_parameters(), fused.parameters(), strict=True):
        assert relative(q, p) < 1e-6, name


def test_other_parameters_are_stepped_as_by_torch() -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [
        kind([{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.1}])
        for kind, model in zip((torch.optim.Adam, SAEAdam), models, strict=True)
    ]
    for _ in range(5):
        x = torch.randn(7, 2, 4, 4)
        for model, optimizer in zip(models, optimizers, strict=True):

            def closure(model: nn.Module = model, x: Tensor = x) -> Tensor:
                model.zero_grad()
                loss = model(x).square().sum()
                loss.backward()
                return loss

            assert optimizer.step(closure) > 0
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert relative(q, p) < 1e-6


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    sae = autoencoder()
    optimizer = ours(sae)
    draw_gradients(sae, 0)
    sae.b_enc.grad = None
    optimizer.step()
    assert not sae.b_enc.any()
    assert sae.b_enc not in optimizer.state


def test_the_learning_rate_may_be_a_tensor_that_a_schedule_fills() -> None:
    fixed, filled = autoencoder(), autoencoder()
    optimizers = ours(fixed), SAEAdam(filled.parameters(), lr=torch.tensor(1e-2))
    optimizers[1].keep_unit_rows(filled.W_dec)
    schedules = [WarmupDecay(o, total_steps=4, warmup_steps=2) for o in optimizers]
    for step in range(3):
        for sae, optimizer, schedule in zip((fixed, filled), optimizers, schedules, strict=True):
            draw_gradients(sae, step)
            optimizer.step()
            schedule.step()
    for (name, p), q in zip(fixed.named_parameters(), filled.parameters(), strict=True):
        assert relative(q, p) < 1e-6, name


def test_a_schedule_that_falls_to_0_may_round_below_it() -> None:
    W = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = SAEAdam([W], lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, end_factor=0, total_iters=20)
    for _ in range(22):
        W.grad = torch.ones_like(W)
        before = W.detach().clone()
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] < 0
    assert torch.equal(W, before)
    optimizer.param_groups[0]["lr"] = -1e-6
    with pytest.raises(ArgumentError, match="lr must be at least 0 and finite, got -1e-06"):
        optimizer.step()


def test_rows_never_touched_keep_their_bits_and_zero_moments() -> None:
    sae = autoencoder()
    before = [p.detach()[0].clone() for p in sae.parameters()]
    optimizer = ours(sae)
    for step in range(10):
        draw_gradients(sae, step)
        optimizer.step()
    for (name, p), row in zip(sae.named_parameters(), before, strict=True):
        assert torch.equal(p.detach()[0], row), name
        assert not optimizer.state[p]["exp_avg"][0].any(), name
        assert not optimizer.state[p]["exp_avg_sq"][0].any(), name


def test_a_copy_follows_every_step_and_a_reload() -> None:
    sae = autoencoder()
    optimizer = ours(sae)
    copies = {p: NarrowCopy(torch.bfloat16) for p in (sae.W_enc, sae.W_dec)}

    def assert_same() -> None:
        for parameter, copy in copies.items():
            found = copy.of(parameter)
            assert found is not None
            assert torch.equal(found, parameter.bfloat16())

    for parameter, copy in copies.items():
        optimizer.keep_copy(parameter, copy)
    assert_same()
    for step in range(5):
        draw_gradients(sae, step)
        optimizer.step()
        assert_same()
    other = autoencoder()
    sae.load_state_dict(other.state_dict())
    assert all(copy.of(parameter) is None for parameter, copy in copies.items())
    optimizer.load_state_dict(optimizer.state_dict())
    assert_same()
    assert torch.equal(sae.W_dec, other.W_dec)


def test_a_copied_model_takes_the_copies_of_its_own_weights() -> None:
    sae = autoencoder()
    optimizer = ours(sae)
    state = set(sae.state_dict())
    optimizer.keep_copy(sae.W_enc, sae.keep_narrow("W_enc", torch.bfloat16))
    assert set(sae.state_dict()) == state
    copied, copied_optimizer = deepcopy((sae, optimizer))
    assert copied.narrow("W_enc") is None
    draw_gradients(copied, 0)
    copied_optimizer.step()
    assert torch.equal(copied.narrow("W_enc"), copied.W_enc.bfloat16())
    assert torch.equal(sae.narrow("W_enc"), sae.W_enc.bfloat16())
    assert not torch.equal(sae.W_enc, copied.W_enc)


def test_a_copied_optimizer_keeps_the_rows_of_the_copied_decoder() -> None:
    sae = autoencoder()
    copied, optimizer = deepcopy((sae, ours(sae)))
    draw_gradients(copied, 0)
    optimizer.step()
    assert not torch.equal(copied.W_dec, sae.W_dec)
    torch.testing.assert_close(copied.W_dec, F.normalize(copied.W_dec, dim=1))


@pytest.mark.parametrize("name", ["x", "W_enc", "b_enc", "W_dec", "b_dec"])
def test_a_batch_with_nan_changes_nothing_on_the_cpu(name: str) -> None:
    sae = autoencoder()
    x = torch.randn(8, sae.d_in)
    optimizer = ours(sae)

    def state() -> list[Tensor]:
        moments = [t for state in optimizer.state.values() for t in state.values()]
        return [t.detach().clone() for t in (*sae.parameters(), *moments)]

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        objective(sae, x, regularizer=L1L2Ratio(0.1)).loss.backward()
        optimizer.step()

    step(x)
    with torch.no_grad():
        (x if name == "x" else getattr(sae, name)).view(-1)[1] = torch.nan
    before = state()
    with pytest.raises(ArgumentError, match=f"{name} has 1 NaN"):
        step(x)
    for one, other in zip(before, state(), strict=True):
        assert torch.equal(one.nan_to_num(7e7), other.nan_to_num(7e7))


def test_a_gradient_scaler_skips_what_overflows() -> None:
    sae = autoencoder()
    before = sae.W_dec.detach().clone()
    optimizer, scaler = ours(sae), torch.amp.GradScaler("cpu", init_scale=4.0)
    for overflows in (True, False):
        draw_gradients(sae, 0)
        scaler.scale(torch.ones(()))
        for parameter in sae.parameters():
            parameter.grad *= float("inf") if overflows else scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(sae.W_dec, before) == overflows
        optimizer.zero_grad()
    plain = autoencoder()
    draw_gradients(plain, 0)
    ours(plain).step()
    torch.testing.assert_close(sae.W_dec, plain.W_dec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "lr must be at least 0 and finite, got -1"),
        ({"betas": (0.9, 1)}, r"betas must be two numbers in \[0, 1\), got \(0.9, 1\)"),
        ({"eps": float("inf")}, "eps must be above 0 and finite, got inf"),
        ({"eps": 0.0}, "eps must be above 0 and finite, got 0.0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0 and finite, got -0.1"),
        ({"state_dtype": "int4"}, r"must be one of \['float32', 'bfloat16', 'int8'\], got 'int4'"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAEAdam([torch.ones(1)], **options)
    with pytest.raises(ValueError, match=message):
        SAEAdam([{"params": [torch.ones(1)], **options}])


def test_parameters_it_cannot_serve_are_refused() -> None:
    bias, stranger = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 3))
    optimizer = SAEAdam([bias])
    with pytest.raises(LightsaeError, match=r"unit rows need a matrix, got shape \(3,\)"):
        optimizer.keep_unit_rows(bias)
    with pytest.raises(LightsaeError, match="not one of this optimizer's"):
        optimizer.keep_unit_rows(stranger)
    with pytest.raises(LightsaeError, match="not one of this optimizer's"):
        optimizer.keep_copy(stranger, NarrowCopy(torch.float16))
