"""A run that was stopped, at any moment and however often, ends as if it never had been."""

import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint

from lightsae.sae import (
    AuxK,
    BankTopK,
    BatchTopK,
    JumpReLU,
    L1L2Ratio,
    Matryoshka,
    MonosemanticityLoss,
)
from lightsae.training import SAEAdam, SAEModule, WarmupDecay, read_checkpoint

from ..training.helpers import (
    finish,
    make_data,
    make_module,
    make_trainer,
    metrics,
    start,
    write_config,
    write_shards,
)

pytestmark = pytest.mark.slow

EPOCHS, BATCHES = 2, 10

# How a run is made: each of these changes when Lightning steps, validates or ends an epoch.
PLANS: dict[str, dict[str, Any]] = {
    "plain": {},
    "validation within the epoch": {"val_check_interval": 4},
    "validation across epochs": {"val_check_interval": 7, "check_val_every_n_epoch": None},
    "accumulated": {"accumulate_grad_batches": 3},
    "part of the epoch": {"limit_train_batches": 7},
}


class Interrupted(Exception):
    pass


class Stop(Callback):
    """Raises at the n-th call of a hook."""

    def __init__(self, hook: str, call: int) -> None:
        self._left = call

        def raise_in_time(*args: Any) -> None:
            self._left -= 1
            if self._left == 0:
                raise Interrupted

        setattr(self, hook, raise_in_time)


class LateStop(Stop, Checkpoint):
    """After the checkpoint is written; Lightning calls its like last."""


MOMENTS: dict[str, tuple[type[Stop], str, int]] = {
    "before the first step": (Stop, "on_train_batch_start", 1),
    "first step": (Stop, "on_train_batch_end", 1),
    "just after a checkpoint": (LateStop, "on_train_batch_end", 3),
    "just after another": (LateStop, "on_train_batch_end", BATCHES + 3),
    "just after that of an epoch": (LateStop, "on_train_epoch_end", 1),
    "second step": (Stop, "on_train_batch_end", 2),
    "mid-epoch": (Stop, "on_train_batch_end", BATCHES + 2),
    "within a step": (Stop, "on_after_backward", BATCHES + 3),
    "last batch of an epoch": (Stop, "on_train_batch_end", BATCHES),
    "during validation": (Stop, "on_validation_batch_end", 2),
    "after validation": (Stop, "on_validation_epoch_end", 2),
    "end of an epoch": (Stop, "on_train_epoch_end", 1),
    "start of an epoch": (Stop, "on_train_epoch_start", 2),
    "last step": (Stop, "on_train_batch_end", EPOCHS * 7),
    "end": (Stop, "on_train_end", 1),
}
OF_EVERY_PLAN = ("just after a checkpoint", "mid-epoch", "within a step", "during validation")
CASES = [
    (plan, moment) for plan in PLANS for moment in (MOMENTS if plan == "plain" else OF_EVERY_PLAN)
]


def make(total_steps: int | None = None) -> SAEModule:
    return make_module(
        regularizer=L1L2Ratio(0.05),
        aux_k=AuxK(k_aux=4, dead_after=48),
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
        lr_scheduler=lambda o: WarmupDecay(o, total_steps, warmup_steps=3, decay_steps=4),
    )


def go(
    shards: Path, run: Path, *stops: Stop, make: Callable[[], SAEModule] = make, **plan: Any
) -> None:
    """Start the run, or go on from its checkpoint."""
    late = [stop for stop in stops if isinstance(stop, LateStop)]
    early = [stop for stop in stops if not isinstance(stop, LateStop)]
    trainer = make_trainer(
        run, every=3, callbacks=early, late=late, **{"max_epochs": EPOCHS, **plan}
    )
    last = run / "last.ckpt"
    path = last if last.exists() else None
    trainer.fit(make(), make_data(shards), ckpt_path=path, weights_only=True)


def same(found: Any, expected: Any, where: str = "") -> None:
    """Bit for bit, naming the first difference."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for number, pair in enumerate(zip(found, expected, strict=True)):
            same(*pair, f"{where}[{number}]")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    else:
        assert found == expected, where


def require_same_run(run: Path, other: Path) -> None:
    found, expected = (read_checkpoint(folder / "last.ckpt") for folder in (run, other))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        same(found[key], expected[key], key)
    assert metrics(run) == metrics(other)


@pytest.fixture(scope="module")
def uninterrupted(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    runs = {name: tmp_path_factory.mktemp("uninterrupted") for name in PLANS}
    for name, run in runs.items():
        go(shards, run, **PLANS[name])
    return runs


def test_there_is_something_to_lose(uninterrupted: dict[str, Path]) -> None:
    for run in uninterrupted.values():
        checkpoint = read_checkpoint(run / "last.ckpt")
        assert checkpoint["state_dict"]["dead_latents.tokens_since_fired"].any()
        assert checkpoint["optimizer_states"][0]["state"]
        assert checkpoint["lr_schedulers"][0]["last_epoch"] == checkpoint["global_step"]
        assert sum("val/loss" in row for row in metrics(run)) >= EPOCHS


@pytest.mark.parametrize(("plan", "moment"), CASES, ids=[", ".join(case) for case in CASES])
def test_a_run_that_was_stopped_once_ends_the_same(
    plan: str, moment: str, uninterrupted: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    stop, hook, call = MOMENTS[moment]
    with pytest.raises(Interrupted):
        go(shards, tmp_path, stop(hook, call), **PLANS[plan])
    go(shards, tmp_path, **PLANS[plan])
    require_same_run(tmp_path, uninterrupted[plan])


@pytest.mark.parametrize("plan", PLANS)
def test_a_run_that_was_stopped_again_and_again_ends_the_same(
    plan: str, uninterrupted: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    stopped = 0
    for call in (2, 5, 4, 1, 9, 7):
        try:
            go(shards, tmp_path, Stop("on_train_batch_end", call), **PLANS[plan])
        except Interrupted:
            stopped += 1
    assert stopped >= 4
    go(shards, tmp_path, **PLANS[plan])
    require_same_run(tmp_path, uninterrupted[plan])


RULES: dict[str, dict[str, Any]] = {
    "BatchTopK, Matryoshka": {
        "selection": BatchTopK(3), "reconstruction": Matryoshka([0.25, 0.5])
    },
    "JumpReLU": {"selection": JumpReLU(3)},
    "BankTopK": {"selection": BankTopK(keep=1, bank=8)},
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_so_does_one_under_another_rule(rule: str, shards: Path, tmp_path: Path) -> None:
    ruled = partial(make_module, **RULES[rule], optimizer=lambda p: SAEAdam(p, lr=0.01))
    go(shards, tmp_path / "whole", make=ruled)
    with pytest.raises(Interrupted):
        go(shards, tmp_path / "stopped", Stop("on_train_batch_end", BATCHES + 2), make=ruled)
    go(shards, tmp_path / "stopped", make=ruled)
    found, expected = tmp_path / "stopped", tmp_path / "whole"
    assert metrics(found) == metrics(expected)
    kept = [read_checkpoint(run / "last.ckpt")["state_dict"] for run in (found, expected)]
    same(*kept)


def test_a_finished_run_is_left_as_it_is(uninterrupted: dict[str, Path], shards: Path) -> None:
    run = uninterrupted["plain"]
    before = (run / "metrics.jsonl").read_text()
    go(shards, run)
    assert (run / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("steps", [7, BATCHES, BATCHES + 3])
def test_a_run_that_ended_early_can_be_lengthened(
    steps: int, uninterrupted: dict[str, Path], shards: Path, tmp_path: Path
) -> None:
    # The fall at the end of the whole run, not of its first part.
    fixed = partial(make, EPOCHS * BATCHES)
    go(shards, tmp_path, make=fixed, max_steps=steps)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == steps
    go(shards, tmp_path, make=fixed)
    found, expected = metrics(tmp_path), metrics(uninterrupted["plain"])
    assert [row for row in found if "val/loss" not in row] == [
        row for row in expected if "val/loss" not in row
    ]
    same(
        *(
            read_checkpoint(run / "last.ckpt")["state_dict"]
            for run in (tmp_path, uninterrupted["plain"])
        )
    )


def rows_logged(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_kill_minus_nine_and_the_same_command_again(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", rows=2000)
    config = write_config(
        tmp_path / "config.yaml",
        shards,
        trainer__max_epochs=4,
        trainer__log_every_n_steps=5,
        data__init_args__buffer_rows=500,
    )

    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def fit(run: Path) -> BaseProcess:
        return start("fit", "--config", config, "--run_dir", run, "--checkpoint_every", 37)

    assert finish(fit(whole)) == [0]
    process = fit(killed)
    while process.is_alive() and rows_logged(killed) < 12:
        time.sleep(0.01)
    process.kill()
    assert finish(process) == [-signal.SIGKILL]
    assert finish(fit(killed)) == [0]
    found, expected = (
        read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (killed, whole)
    )
    same(found["state_dict"], expected["state_dict"])
    assert metrics(killed) == metrics(whole)
    saved = [(run / "sae" / "sae.safetensors").read_bytes() for run in (killed, whole)]
    assert saved[0] == saved[1]
    assert not list(killed.rglob(".*"))


def warming() -> SAEModule:
    return make_module(
        regularizer=MonosemanticityLoss(0.2, weight_warmup=2 * BATCHES),
        aux_k=AuxK(k_aux=4, dead_after_multiple=6),
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
    )


def test_lambda_goes_on_rising_where_it_was(shards: Path, tmp_path: Path) -> None:
    go(shards, tmp_path / "whole", make=warming)
    with pytest.raises(Interrupted):
        go(shards, tmp_path / "cut", Stop("on_train_batch_end", BATCHES + 2), make=warming)
    go(shards, tmp_path / "cut", make=warming)
    require_same_run(tmp_path / "cut", tmp_path / "whole")
    rows = metrics(tmp_path / "cut")
    weights = [row["train/regularizer_weight"] for row in rows if "train/loss" in row]
    expected = [0.2 * min(1, step / (2 * BATCHES)) for step in range(len(weights))]
    assert weights == pytest.approx(expected)
