"""SAEAdam under a Trainer: equal to Adam with hooks, in mixed precision, averaged and resumed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.nn import functional as F

from lightsae.cli import main
from lightsae.sae import SparseAutoencoder
from lightsae.training import SAEModule

from ..helpers import D_IN, D_SAE, make_data, make_module, make_trainer, write_config
from .stepped import adam, fused, relative

Make = Callable[[Any], torch.optim.Optimizer]


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
