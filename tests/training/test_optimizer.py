"""SAEAdam: torch's Adam with the decoder's treatment inside, alone and under a Trainer."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightsae_kernels import ArgumentError, NarrowCopy, Quantized
from lightsae_kernels.quantized_moments import dequantize
from torch import Tensor, nn
from torch.nn import functional as F

from lightsae.cli import main
from lightsae.errors import LightsaeError
from lightsae.sae import L1L2Ratio, SparseAutoencoder, TopK, objective
from lightsae.training import SAEAdam, SAEModule, WarmupDecay

from .helpers import D_IN, D_SAE, make_data, make_module, make_trainer, write_config

Make = Callable[[Any], torch.optim.Optimizer]


def autoencoder() -> SparseAutoencoder:
    torch.manual_seed(0)
    return SparseAutoencoder(6, 24, TopK(3))


def ours(sae: SparseAutoencoder, **options: Any) -> SAEAdam:
    optimizer = SAEAdam(sae.parameters(), lr=1e-2, **options)
    optimizer.keep_unit_rows(sae.W_dec)
    return optimizer


def draw_gradients(sae: SparseAutoencoder, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in sae.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        parameter.grad[0] = 0


def relative(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


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


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def fused(parameters: Any) -> torch.optim.Optimizer:
    return SAEAdam(parameters, lr=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 0.01},
        {"gradient_clip_val": 0.001, "gradient_clip_algorithm": "value"},
        {"gradient_clip_val": 0.01, "precision": "bf16-mixed"},
    ],
    ids=["plain", "accumulated", "clipped", "clipped by value", "clipped in bf16-mixed"],
)
def test_training_equals_adam_with_its_hooks(
    options: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    def trained(make: Make) -> SAEModule:
        module = make_module(optimizer=make)
        trainer = make_trainer(
            tmp_path / make.__name__, max_epochs=1, limit_val_batches=0, **options
        )
        trainer.fit(module, make_data(shards))
        return module

    expected, found = trained(adam), trained(fused)
    for (name, p), q in zip(
        expected.sae.named_parameters(), found.sae.named_parameters(), strict=True
    ):
        assert relative(q[1], p) < 1e-6, name


class Treated(Callback):
    """Counts what the module does to the decoder itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        for name in ("project_decoder_gradient_", "normalize_decoder_"):
            original = getattr(SparseAutoencoder, name)

            def call(sae: Any, name: str = name, original: Any = original) -> None:
                self.calls.append(name)
                original(sae)

            monkeypatch.setattr(SparseAutoencoder, name, call)
        self.furthest = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        norms = pl_module.sae.W_dec.norm(dim=1)
        self.furthest = max(self.furthest, (norms - 1).abs().max().item())


@pytest.mark.parametrize(
    ("clip", "calls"), [(None, set()), (0.01, {"project_decoder_gradient_"})], ids=str
)
def test_the_decoder_is_treated_once(
    clip: float | None, calls: set[str], shards: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    treated = Treated(monkeypatch)
    trainer = make_trainer(tmp_path, callbacks=[treated], max_epochs=1, gradient_clip_val=clip)
    trainer.fit(make_module(optimizer=fused), make_data(shards))
    assert set(treated.calls) == calls
    assert treated.furthest < 1e-6


class Copied(Callback):
    """Whether a bf16 product of this step takes a copy instead of casting."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.seen.append(pl_module.sae.narrow("W_enc") is not None)


@pytest.mark.parametrize(("precision", "copied"), [("bf16-mixed", True), ("32-true", False)])
def test_products_in_mixed_precision_take_the_optimizers_copy(
    precision: Any, copied: bool, shards: Path, tmp_path: Path
) -> None:
    found = Copied()
    trainer = make_trainer(tmp_path, callbacks=[found], max_epochs=1, precision=precision)
    trainer.fit(make_module(optimizer=fused), make_data(shards))
    assert set(found.seen) == {copied}


class Recorded(Callback):
    """Whether products outside training take the weights that are there."""

    def __init__(self) -> None:
        self.differences: list[float] = []

    def on_validation_batch_start(self, *args: Any) -> None:
        self._compare(args[1])

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._compare(pl_module)

    def _compare(self, module: LightningModule) -> None:
        assert isinstance(module, SAEModule)
        now = module.sae.W_enc.detach().to(torch.bfloat16)
        copy = module.sae.narrow("W_enc")
        self.differences.append(0.0 if copy is None else float((copy - now).abs().max()))


# Of sharded layers, which there are none of.
@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback:UserWarning")
def test_weights_that_a_callback_averages_are_those_that_are_validated(
    shards: Path, tmp_path: Path
) -> None:
    module, recorded = make_module(optimizer=fused), Recorded()
    averaging = EMAWeightAveraging(decay=0.5)
    callbacks = [averaging, recorded]
    trainer = make_trainer(tmp_path, precision="bf16-mixed", callbacks=callbacks, max_epochs=2)
    trainer.fit(module, make_data(shards))
    assert len(recorded.differences) > 2
    assert max(recorded.differences) == 0


def test_a_stopped_run_ends_in_the_same_weights(shards: Path, tmp_path: Path) -> None:
    def trained(run: str, epochs: int, checkpoint: Path | None = None) -> SAEModule:
        module = make_module(optimizer=fused, d_in=D_IN)
        trainer = make_trainer(tmp_path / run, max_epochs=epochs, limit_val_batches=0)
        trainer.fit(module, make_data(shards), ckpt_path=checkpoint)
        return module

    whole = trained("whole", 2)
    trained("stopped", 1)
    resumed = trained("resumed", 2, tmp_path / "stopped/last.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_configuration_names_it(shards: Path, tmp_path: Path) -> None:
    optimizer = {"class_path": "lightsae.training.SAEAdam", "init_args": {"lr": 0.01}}
    config = write_config(tmp_path / "c.yaml", shards, model__init_args__optimizer=optimizer)
    run = tmp_path / "run"
    assert main(["fit", "--config", str(config), "--run_dir", str(run)]) == 0
    sae = SparseAutoencoder.load(run / "sae")
    assert sae.d_sae == D_SAE
    torch.testing.assert_close(sae.W_dec, F.normalize(sae.W_dec, dim=1))
