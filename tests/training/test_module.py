"""SAEModule under a Trainer: what it takes from the data, logs, steps and saves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import Tensor

from lightsae.activations import ActivationDataModule
from lightsae.errors import LightsaeError
from lightsae.sae import AuxK, L1L2Ratio, OffSupportL1, SparseAutoencoder, TopK
from lightsae.sae.regularizers import Regularizer
from lightsae.training import SAEAdam, SAEModule, WarmupDecay

from .helpers import D_IN, D_SAE, K, make_data, make_module, make_trainer, metrics, write_shards

TRAIN_NAMES = {
    "train/loss",
    "train/reconstruction",
    "train/aux_k",
    "train/penalty",
    "train/r2",
    "train/l0",
    "train/dead_fraction",
    "train/batch_active_fraction",
}
EVALUATION_NAMES = {"loss", "reconstruction", "penalty", "r2", "l0", "dead"}


class SquaredOffSupport(Regularizer):
    """A user's own, which has no fused operation."""

    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        return (a.scatter(1, indices, 0.0) * batch_active).square().sum(dim=1).mean()


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def test_the_width_comes_from_the_data(shards: Path, tmp_path: Path) -> None:
    module = make_module()
    make_trainer(tmp_path, max_epochs=1).fit(module, make_data(shards))
    assert module.sae.W_enc.shape == module.sae.W_dec.shape == (D_SAE, D_IN)
    assert module.hparams["d_in"] == D_IN


@pytest.mark.parametrize("task", ["fit", "validate", "test", "predict"])
def test_a_width_that_disagrees_is_refused_with_both_and_the_folder(
    task: str, shards: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path)
    with pytest.raises(LightsaeError, match=rf"d_in = 7, .*{shards}.* d_in = 6"):
        getattr(trainer, task)(make_module(d_in=7), make_data(shards))


def test_k_larger_than_the_dictionary_is_refused() -> None:
    with pytest.raises(LightsaeError, match="k = 9 is larger than d_sae = 8"):
        SAEModule(d_sae=8, selection=TopK(9))


def test_an_optimizer_that_cannot_be_made_is_named(shards: Path, tmp_path: Path) -> None:
    module = make_module(optimizer=lambda p: torch.optim.SGD(p, lr=-1))
    with pytest.raises(LightsaeError, match="optimizer cannot be made: Invalid learning rate: -1"):
        make_trainer(tmp_path).fit(module, make_data(shards))


def test_scale_and_centre_come_from_the_training_split_alone(shards: Path, tmp_path: Path) -> None:
    def fitted(data: ActivationDataModule) -> SparseAutoencoder:
        module = make_module()
        make_trainer(tmp_path, max_epochs=0).fit(module, data)
        return module.sae

    data = make_data(shards, val_fraction=0.3, test_fraction=0.3)
    sae = fitted(data)
    data.setup()
    rows = torch.cat([batch.activations for batch in data.train_dataloader()])
    everything = torch.cat([batch.activations for batch in data.predict_dataloader()])
    variance = (rows - rows.mean(dim=0)).square().sum(dim=1).mean()
    torch.testing.assert_close(sae.scale, variance.sqrt())
    torch.testing.assert_close(sae.b_dec * sae.scale, rows.mean(dim=0))
    assert not torch.allclose(sae.b_dec * sae.scale, everything.mean(dim=0), rtol=1e-3)


@pytest.mark.parametrize("task", ["validate", "test", "predict"])
def test_evaluation_leaves_scale_and_centre_alone(task: str, shards: Path, tmp_path: Path) -> None:
    module = make_module()
    getattr(make_trainer(tmp_path), task)(module, make_data(shards))
    assert module.sae.scale == 1
    assert not module.sae.b_dec.any()


def test_every_step_logs_the_parts_of_the_loss_and_how_sparse_the_code_is(
    shards: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, max_epochs=1)
    module = make_module(regularizer=L1L2Ratio(0.5), aux_k=AuxK(weight=0.25, dead_after=16))
    trainer.fit(module, make_data(shards))
    steps, validation = metrics(tmp_path)[:-1], metrics(tmp_path)[-1]
    assert [row["step"] for row in steps] == list(range(10))
    assert all(row.keys() == TRAIN_NAMES | {"step", "epoch"} for row in steps)
    assert validation.keys() == {f"val/{n}" for n in EVALUATION_NAMES} | {"step", "epoch"}
    for row in steps:
        parts = row["train/reconstruction"] + 0.25 * row["train/aux_k"] + 0.5 * row["train/penalty"]
        assert row["train/loss"] == pytest.approx(parts)
        assert 0 < row["train/l0"] <= K
        assert 0 < row["train/batch_active_fraction"] <= 1
    assert steps[-1]["train/dead_fraction"] > 0
    assert steps[-1]["train/aux_k"] > 0


def test_speed_is_measured_from_the_first_step_of_an_epoch(shards: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_epochs=2, limit_val_batches=0)
    trainer.fit(make_module(), make_data(shards))
    speeds = [
        row.get("train/tokens_per_second")
        for row in trainer.logger.rows()  # type: ignore[union-attr]
    ]
    assert [step for step, speed in enumerate(speeds) if speed is None] == [0, 10]
    assert all(speed > 0 for speed in speeds if speed is not None)


def test_test_logs_its_own_names(shards: Path, tmp_path: Path) -> None:
    [logged] = make_trainer(tmp_path).test(make_module(), make_data(shards), verbose=False)
    assert logged.keys() == {f"test/{name}" for name in EVALUATION_NAMES}


def test_validation_metrics_are_those_of_all_rows_at_once(shards: Path, tmp_path: Path) -> None:
    module, data = make_module(d_in=D_IN), make_data(shards, batch_size=3)
    [logged] = make_trainer(tmp_path).validate(module, data, verbose=False)
    data.setup()
    x = torch.cat([batch.activations for batch in data.val_dataloader()])
    residual = (x - module.sae(x)).square().sum()
    r2 = 1 - residual / (x - x.mean(dim=0)).square().sum()
    assert len(x) % 3
    assert logged["val/r2"] == pytest.approx(r2.item(), rel=1e-5)
    assert logged["val/reconstruction"] == pytest.approx(residual.item() / len(x), rel=1e-5)


def test_predict_returns_the_code_of_every_row(shards: Path, tmp_path: Path) -> None:
    module, data = make_module(d_in=D_IN), make_data(shards)
    codes = make_trainer(tmp_path).predict(module, data)
    assert codes is not None
    assert sum(len(code.values) for code in codes) == 200
    assert torch.equal(
        module(torch.ones(2, D_IN)).indices, module.sae.encode(torch.ones(2, D_IN)).indices
    )


class Calls(Callback):
    """Records the order of what happens to the gradient."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, optimizer: type) -> None:
        self.made: list[str] = []
        for owner, name in (
            (SparseAutoencoder, "project_decoder_gradient_"),
            (SparseAutoencoder, "normalize_decoder_"),
            (SAEModule, "clip_gradients"),
            (optimizer, "step"),
        ):
            monkeypatch.setattr(owner, name, self._recorded(name, getattr(owner, name)))

    def _recorded(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            inside = name == "step" and "closure" in kwargs
            if not inside:
                self.made.append(name)
            result = original(*args, **kwargs)
            if inside:
                self.made.append(name)
            return result

        return call

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.made.append("backward")


def test_the_gradient_is_projected_once_per_step_before_it_is_clipped(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch, torch.optim.SGD)
    trainer = make_trainer(
        tmp_path,
        callbacks=[calls],
        max_epochs=1,
        accumulate_grad_batches=2,
        gradient_clip_val=0.01,
        limit_val_batches=0,
    )
    trainer.fit(make_module(optimizer=sgd), make_data(shards))
    step = ["project_decoder_gradient_", "clip_gradients", "step", "normalize_decoder_"]
    assert calls.made == ["backward", "backward", *step] * 5


class SeenGradients(torch.optim.SGD):
    """Keeps what the optimizer is given, and the decoder rows after it."""

    seen: list[tuple[Tensor, Tensor]]

    def __init__(self, parameters: Iterator[Tensor]) -> None:
        super().__init__(parameters, lr=0.05)
        self.seen = []

    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure else None
        W_enc, b_enc, W_dec, b_dec = self.param_groups[0]["params"]
        every = torch.cat([p.grad.flatten() for p in (W_enc, b_enc, W_dec, b_dec)])
        self.seen.append((every.norm(), torch.linalg.vecdot(W_dec.grad, W_dec)))
        super().step()
        return loss


def test_the_optimizer_sees_a_tangent_gradient_of_the_norm_it_was_clipped_to(
    shards: Path, tmp_path: Path
) -> None:
    module = make_module(optimizer=SeenGradients)
    trainer = make_trainer(tmp_path, max_epochs=1, gradient_clip_val=0.01)
    trainer.fit(module, make_data(shards))
    seen = trainer.optimizers[0].seen  # type: ignore[attr-defined]
    assert len(seen) == 10
    for norm, along in seen:
        assert norm.item() == pytest.approx(0.01, rel=1e-3)
        assert along.abs().max() < 1e-7
    norms = module.sae.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(D_SAE))


def test_decoder_rows_have_unit_norm_after_every_step(shards: Path, tmp_path: Path) -> None:
    class Norms(Callback):
        furthest = 0.0

        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, *args: Any
        ) -> None:
            norms = pl_module.sae.W_dec.norm(dim=1)
            self.furthest = max(self.furthest, (norms - 1).abs().max().item())

    norms = Norms()
    make_trainer(tmp_path, callbacks=[norms]).fit(make_module(optimizer=sgd), make_data(shards))
    assert norms.furthest < 1e-6


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, SAEAdam])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_parameter_that_the_optimizer_does_not_have_stays_as_it_is(
    optimizer: Any, precision: Any, shards: Path, tmp_path: Path
) -> None:
    def without(number: int) -> Callable[[Any], torch.optim.Optimizer]:
        return lambda found: optimizer([p for n, p in enumerate(found) if n != number], lr=0.01)

    for number, name in enumerate(["W_enc", "b_enc", "W_dec"]):
        module = make_module(d_in=D_IN, optimizer=without(number))
        before = {key: tensor.clone() for key, tensor in module.sae.state_dict().items()}
        make_trainer(tmp_path, precision=precision, max_epochs=1).fit(module, make_data(shards))
        changed = {
            key for key, t in module.sae.state_dict().items() if not torch.equal(t, before[key])
        }
        assert changed == set(before) - {name}


def test_groups_of_parameters_keep_their_own_rates(shards: Path, tmp_path: Path) -> None:
    def groups(found: Any) -> torch.optim.Optimizer:
        W_enc, b_enc, W_dec, b_dec = found
        return SAEAdam(
            [{"params": [W_enc, b_enc], "lr": 0.01}, {"params": [W_dec, b_dec]}], lr=0.02
        )

    module = make_module(optimizer=groups, lr_scheduler=lambda o: WarmupDecay(o, decay_steps=10))
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[LearningRateMonitor()])
    trainer.fit(module, make_data(shards))
    logged = [row for row in metrics(tmp_path) if "lr-SAEAdam/pg1" in row]
    assert [row["lr-SAEAdam/pg1"] for row in logged[-2:]] == pytest.approx([0.002, 0.001])
    assert [row["lr-SAEAdam/pg2"] for row in logged[-2:]] == pytest.approx([0.004, 0.002])
    norms = module.sae.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(D_SAE))


def test_accumulated_batches_are_one_large_batch(shards: Path, tmp_path: Path) -> None:
    def trained(name: str, size: int, accumulate: int) -> dict[str, Tensor]:
        module = make_module(optimizer=sgd)
        options = {"precision": "64-true", "max_epochs": 1, "accumulate_grad_batches": accumulate}
        trainer = make_trainer(tmp_path / name, **options)
        trainer.fit(module, make_data(shards, batch_size=size))
        assert trainer.global_step == 5
        return module.state_dict()

    many, one = trained("many", 8, 4), trained("one", 32, 1)
    for name in one.keys() - {"dead_latents.tokens_since_fired"}:
        torch.testing.assert_close(many[name], one[name], rtol=1e-10, atol=1e-12, msg=name)


class CrowdOut(Callback):
    """Gives half of the latents activations too small to be selected."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.sae.W_enc.data[: D_SAE // 2] *= 0.02


def dead_fractions(shards: Path, run: Path, weight: float) -> list[float]:
    module = make_module(
        aux_k=AuxK(weight=weight, k_aux=D_SAE // 2, dead_after=160),
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
    )
    trainer = make_trainer(run, callbacks=[CrowdOut()], max_epochs=12, limit_val_batches=0)
    trainer.fit(module, make_data(shards))
    return [row["train/dead_fraction"] for row in metrics(run)]


def test_aux_k_revives_dead_latents(tmp_path: Path) -> None:
    wide = write_shards(tmp_path / "shards", d_in=16)
    left = dead_fractions(wide, tmp_path / "without", 0.0)
    revived = dead_fractions(wide, tmp_path / "with", 0.5)
    assert left[9] == revived[9] > 0.3
    assert left[-1] > 0.3
    assert revived[-1] == 0


def test_a_schedule_is_stepped_after_every_step(shards: Path, tmp_path: Path) -> None:
    module = make_module(
        optimizer=sgd,
        lr_scheduler=lambda o: WarmupDecay(o, total_steps=20, decay_steps=20),
    )
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, make_data(shards))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 * 0.5)


@pytest.mark.parametrize(
    "regularizer",
    [OffSupportL1(0.3), L1L2Ratio(0.3), SquaredOffSupport(0.3)],
    ids=["reg1", "reg2", "user's own"],
)
def test_a_regularizer_lowers_its_own_penalty(
    regularizer: Regularizer, shards: Path, tmp_path: Path
) -> None:
    make_trainer(tmp_path, max_epochs=8).fit(
        make_module(regularizer=regularizer, optimizer=sgd), make_data(shards)
    )
    penalties = [row["train/penalty"] for row in metrics(tmp_path) if "train/penalty" in row]
    assert penalties[-1] < 0.8 * penalties[0]


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32),
        ("bf16-mixed", torch.float32),
        ("bf16-true", torch.bfloat16),
        ("64-true", torch.float64),
    ],
)
def test_it_trains_in_every_precision(
    precision: Any, dtype: torch.dtype, shards: Path, tmp_path: Path
) -> None:
    module = make_module(
        regularizer=OffSupportL1(0.01),
        aux_k=AuxK(dead_after=16, k_aux=4),
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
    )
    trainer = make_trainer(tmp_path, precision=precision, max_epochs=4)
    data = make_data(shards)
    trainer.fit(module, data)
    [tested] = trainer.test(module, data, verbose=False)
    losses = [row["train/reconstruction"] for row in metrics(tmp_path) if "train/loss" in row]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert {parameter.dtype for parameter in module.sae.parameters()} == {dtype}
    assert tested["test/r2"] > 0.3
    norms = module.sae.W_dec.detach().double().norm(dim=1)
    assert (norms - 1).abs().max() < (1e-2 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.parametrize("rows", [17, 31], ids=["one row left over", "one row missing"])
def test_the_last_batch_may_be_smaller(rows: int, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", rows=rows)
    data = make_data(folder, val_fraction=0.0, test_fraction=0.0)
    module = make_module(regularizer=L1L2Ratio(0.1), aux_k=AuxK(dead_after=1))
    make_trainer(tmp_path, limit_val_batches=0).fit(module, data)
    rows_logged = metrics(tmp_path)
    assert [row["step"] for row in rows_logged] == [0, 1, 2, 3]
    assert all(row["train/loss"] is not None for row in rows_logged)
    assert all(parameter.isfinite().all() for parameter in module.sae.parameters())
    assert int(module.dead_latents.tokens_since_fired.max()) <= 2 * rows


def test_a_checkpoint_loads_by_itself_with_the_same_selection(shards: Path, tmp_path: Path) -> None:
    module = make_module(aux_k=AuxK(dead_after=16))
    make_trainer(tmp_path).fit(module, make_data(shards))
    path = tmp_path / "last.ckpt"
    loaded = SAEModule.load_from_checkpoint(path, selection=TopK(K), weights_only=True)
    x = torch.randn(5, D_IN)
    assert torch.equal(loaded.sae(x), module.sae(x))
    counters = loaded.dead_latents.tokens_since_fired
    assert counters.any()
    assert torch.equal(counters, module.dead_latents.tokens_since_fired)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": TopK(4)}, r"trained with selection \{'rule': 'TopK', 'k': 3\}.*'k': 4"),
        ({"selection": TopK(K), "d_in": 7}, r"sae.W_enc is \[24, 6\], expected \[24, 7\]"),
        ({"selection": TopK(K), "d_sae": 8}, r"sae.W_enc is \[24, 6\], expected \[8, 6\]"),
    ],
    ids=["k", "d_in", "d_sae"],
)
def test_a_checkpoint_of_another_model_is_refused(
    options: dict[str, Any], message: str, shards: Path, tmp_path: Path
) -> None:
    make_trainer(tmp_path, max_epochs=1).fit(make_module(), make_data(shards))
    with pytest.raises(LightsaeError, match=message):
        SAEModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True, **options)


@pytest.mark.parametrize("compiled", ["saved", "loaded"])
def test_a_checkpoint_fits_whether_its_autoencoder_was_compiled_or_not(compiled: str) -> None:
    saved, loaded = make_module(d_in=D_IN), make_module(d_in=D_IN)
    module = saved if compiled == "saved" else loaded
    module.sae = torch.compile(module.sae, backend="eager")  # type: ignore[assignment]
    checkpoint: dict[str, Any] = {"state_dict": saved.state_dict()}
    saved.on_save_checkpoint(checkpoint)
    assert "sae.W_enc" in checkpoint["state_dict"]
    loaded.on_load_checkpoint(checkpoint)
    loaded.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(loaded.sae.W_enc, saved.sae.W_enc)


def test_a_checkpoint_that_was_written_with_the_prefix_of_a_compiled_one_is_read() -> None:
    saved, loaded = make_module(d_in=D_IN), make_module(d_in=D_IN)
    saved.sae = torch.compile(saved.sae, backend="eager")  # type: ignore[assignment]
    checkpoint: dict[str, Any] = {"state_dict": saved.state_dict()}
    loaded.on_load_checkpoint(checkpoint)
    loaded.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(loaded.sae.W_enc, saved.sae.W_enc)
