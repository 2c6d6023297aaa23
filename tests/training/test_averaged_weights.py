"""Lightning's callbacks that average weights: unit rows where they are used, exact on resuming."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import Tensor

from lightsae.sae import TopK
from lightsae.training import SAEAdam, SAEModule, read_checkpoint

from .helpers import D_IN, K, make_data, make_module, make_trainer, metrics

pytestmark = pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback")

DECAY = 0.75
CALLBACKS: dict[str, Callable[[], Callback]] = {
    "ema": lambda: EMAWeightAveraging(decay=DECAY),
    "late ema": lambda: EMAWeightAveraging(decay=DECAY, update_starting_at_step=14),
    "mean of steps": WeightAveraging,
    "swa": lambda: StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=1, annealing_epochs=3),
}
OFTEN, RARELY = {"val_check_interval": 2}, {"limit_val_batches": 0}


def make(**options: Any) -> SAEModule:
    return make_module(optimizer=lambda p: SAEAdam(p, lr=0.02), **options)


class Weights(Callback):
    """Trained weights after each step, and at the start of each epoch."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.epochs: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps.append(deepcopy(pl_module.sae.state_dict()))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epochs.append(deepcopy(pl_module.sae.state_dict()))


def fitted(
    shards: Path, run: Path, name: str, ckpt: Path | None = None, more: Any = (), **options: Any
) -> tuple[SAEModule, Weights]:
    module, seen = make(), Weights()
    options = {"precision": "64-true", "max_epochs": 3, **options}
    trainer = make_trainer(run, callbacks=[seen, CALLBACKS[name](), *more], every=3, **options)
    trainer.fit(module, make_data(shards), ckpt_path=ckpt, weights_only=True)
    return module, seen


@pytest.fixture(scope="module")
def whole(
    shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[SAEModule, Weights, Path]]:
    """A run that was never stopped, made once for each callback."""

    @cache
    def make_once(name: str) -> tuple[SAEModule, Weights, Path]:
        run = tmp_path_factory.mktemp("whole")
        return (*fitted(shards, run, name), run)

    return make_once


Whole = Callable[[str], tuple[SAEModule, Weights, Path]]


def mean(name: str, seen: Weights) -> dict[str, Tensor]:
    """The definition: of each weight the mean, of the decoder then each row over its norm."""
    if name in ("ema", "late ema"):
        states = seen.steps[14:] if name == "late ema" else seen.steps
        found = dict(states[0])
        for state in states[1:]:
            found = {n: DECAY * t + (1 - DECAY) * state[n] for n, t in found.items()}
    else:
        states = seen.epochs[:3] if name == "swa" else seen.steps
        found = {n: torch.stack([state[n] for state in states]).mean(dim=0) for n in states[0]}
    found["W_dec"] = torch.nn.functional.normalize(found["W_dec"], dim=1)
    return found


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_run_ends_with_the_mean_and_unit_rows(name: str, whole: Whole) -> None:
    module, seen, _ = whole(name)
    found = module.sae.state_dict()
    for key, tensor in mean(name, seen).items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-12, atol=1e-12, msg=key)
    assert found["W_dec"].dtype == torch.float64
    assert not torch.allclose(found["W_dec"], seen.steps[-1]["W_dec"])


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_checkpoint_holds_what_the_run_ends_with(name: str, whole: Whole) -> None:
    module, seen, run = whole(name)
    path = run / "last.ckpt"
    saved = read_checkpoint(path)
    for key, tensor in module.sae.state_dict().items():
        assert torch.equal(saved["state_dict"][f"sae.{key}"], tensor), key
        assert torch.equal(saved["current_model_state"][f"sae.{key}"], seen.steps[-1][key]), key
    loaded = SAEModule.load_from_checkpoint(path, selection=TopK(K), weights_only=True)
    torch.testing.assert_close(loaded.sae.W_dec.double(), module.sae.W_dec)


@pytest.mark.parametrize("name", ["ema", "late ema"])
def test_validation_is_of_the_mean_and_changes_nothing(
    name: str, shards: Path, tmp_path: Path
) -> None:
    rarely, _ = fitted(shards, tmp_path / "rarely", name, **RARELY)
    often, _ = fitted(shards, tmp_path / "often", name, **OFTEN)
    assert same(often.sae.state_dict(), rarely.sae.state_dict())
    for key in ("current_model_state", "averaging_state", "averaged_decoder"):
        one, two = (
            read_checkpoint(tmp_path / run / "last.ckpt")[key] for run in ("rarely", "often")
        )
        assert one == two if key == "averaging_state" else torch.equal(*map(_flat, (one, two)))
    last = metrics(tmp_path / "often")[-1]
    trainer = make_trainer(tmp_path / "again", precision="64-true")
    [again] = trainer.validate(rarely, make_data(shards), verbose=False)
    assert last["val/loss"] == again["val/loss"]


def _flat(found: Any) -> Tensor:
    tensors = found.values() if isinstance(found, dict) else [found]
    return torch.cat([tensor.double().flatten() for tensor in tensors])


def test_before_anything_is_averaged_the_trained_weights_stand(
    shards: Path, tmp_path: Path
) -> None:
    never = EMAWeightAveraging(update_starting_at_step=1000)
    module = make()
    trainer = make_trainer(tmp_path / "never", callbacks=[never])
    trainer.fit(module, make_data(shards))
    plain = make()
    make_trainer(tmp_path / "plain").fit(plain, make_data(shards))
    assert same(module.sae.state_dict(), plain.sae.state_dict())
    assert metrics(tmp_path / "never") == metrics(tmp_path / "plain")
    saved = read_checkpoint(tmp_path / "never" / "last.ckpt")["state_dict"]
    assert torch.equal(saved["sae.W_dec"], plain.sae.W_dec)


class Stop(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            raise InterruptedError


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("ema", 4),
        ("ema", 11),
        ("ema", 26),
        ("late ema", 14),
        ("mean of steps", 21),
        ("swa", 4),
        ("swa", 11),
        ("swa", 26),
    ],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    name: str, step: int, shards: Path, tmp_path: Path, whole: Whole
) -> None:
    expected, _, other = whole(name)
    run = tmp_path / "run"
    with pytest.raises(InterruptedError):
        fitted(shards, run, name, more=[Stop(step)])
    resumed, _ = fitted(shards, run, name, ckpt=run / "last.ckpt")
    assert same(resumed.sae.state_dict(), expected.sae.state_dict())
    assert metrics(run) == metrics(other)


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_finished_run_ends_with_its_mean_again(
    name: str, shards: Path, tmp_path: Path, whole: Whole
) -> None:
    module, _, run = whole(name)
    again, seen = fitted(shards, tmp_path, name, ckpt=run / "last.ckpt")
    assert not seen.steps
    assert same(again.sae.state_dict(), module.sae.state_dict())


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_narrow_copies_follow_the_mean(name: str, shards: Path, tmp_path: Path) -> None:
    module, _ = fitted(shards, tmp_path, name, precision="bf16-mixed")
    trainer = make_trainer(tmp_path / "again", precision="bf16-mixed")
    [again] = trainer.validate(module, make_data(shards), verbose=False)
    if name == "ema":
        assert metrics(tmp_path)[-1]["val/loss"] == again["val/loss"]
    norms = module.sae.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_checkpoint_of_weights_alone_holds_the_mean_too(
    name: str, shards: Path, tmp_path: Path
) -> None:
    kept = ModelCheckpoint(tmp_path, filename="weights", save_weights_only=True)
    fitted(shards, tmp_path, name, more=[kept], **RARELY)
    weights, everything = (
        read_checkpoint(tmp_path / f"{file}.ckpt") for file in ("weights", "last")
    )
    assert same(weights["state_dict"], everything["state_dict"])
    assert "optimizer_states" not in weights
    assert "current_model_state" not in weights


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_a_compiled_autoencoder_ends_as_one_that_is_not(
    name: str, shards: Path, tmp_path: Path
) -> None:
    def compiled() -> SAEModule:
        module = make(d_in=D_IN)
        module.sae = torch.compile(module.sae, backend="eager")  # type: ignore[assignment]
        return module

    def go(module: SAEModule, run: Path, **options: Any) -> dict[str, Tensor]:
        last = run / "last.ckpt"
        trainer = make_trainer(run, callbacks=[CALLBACKS[name]()], **options)
        trainer.fit(module, make_data(shards), ckpt_path=last if last.exists() else None)
        return read_checkpoint(last)["state_dict"]

    expected = go(make(d_in=D_IN), tmp_path / "plain")
    go(compiled(), tmp_path / "compiled", max_steps=13)
    assert same(go(compiled(), tmp_path / "compiled"), expected)


class Files:
    """Like an open file, it cannot be copied."""

    def adam(self, parameters: Any, lr: float) -> torch.optim.Optimizer:
        return SAEAdam(parameters, lr=lr)

    def __reduce__(self) -> Any:
        raise TypeError("open files cannot be copied")


def test_a_copy_of_a_module_shares_what_makes_its_optimizer() -> None:
    module = make_module(d_in=D_IN, optimizer=partial(Files().adam, lr=0.1))
    module._captured = Files()  # type: ignore[assignment]
    copy = deepcopy(module)
    assert copy._captured is None
    assert copy.sae.W_dec is not module.sae.W_dec
    optimizer = copy.make_optimizer(copy.sae.parameters())
    assert optimizer.param_groups[0]["lr"] == 0.1


class Copies(Callback):
    def __init__(self) -> None:
        self.made: list[LightningModule] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.made.append(deepcopy(pl_module))


def test_a_copy_reaches_neither_the_trainer_nor_the_data(shards: Path, tmp_path: Path) -> None:
    copies = Copies()
    trainer = make_trainer(tmp_path, callbacks=[copies], max_epochs=1, precision="bf16-mixed")
    trainer.fit(make(), make_data(shards))
    assert len(copies.made) == 10
    assert all(copy._trainer is None for copy in copies.made)
    x = torch.randn(3, D_IN)
    assert not torch.equal(copies.made[0].sae(x), copies.made[9].sae(x))
