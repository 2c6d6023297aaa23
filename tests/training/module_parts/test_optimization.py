"""Optimizer steps: gradients as the optimizer gets them, unit rows after, schedules."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import SparseAutoencoder
from lightsae.training import SAEAdam, SAEModule, WarmupDecay

from ..helpers import D_IN, D_SAE, make_data, make_module, make_trainer, metrics


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def test_an_optimizer_that_cannot_be_made_is_named(shards: Path, tmp_path: Path) -> None:
    module = make_module(optimizer=lambda p: torch.optim.SGD(p, lr=-1))
    with pytest.raises(LightsaeError, match="optimizer cannot be made: Invalid learning rate: -1"):
        make_trainer(tmp_path).fit(module, make_data(shards))


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


def test_a_schedule_is_stepped_after_every_step(shards: Path, tmp_path: Path) -> None:
    module = make_module(
        optimizer=sgd,
        lr_scheduler=lambda o: WarmupDecay(o, total_steps=20, decay_steps=20),
    )
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, make_data(shards))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 * 0.5)
