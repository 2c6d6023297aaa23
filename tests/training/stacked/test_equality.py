"""Every member of a stack ends as a run of its own with the same data."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.sae import AuxK, JumpReLU, L1L2Ratio, MonosemanticityLoss, OffSupportL1
from lightsae.training import SAEAdam, WarmupDecay
from lightsae.training.stacked import joint_gradients, parameters

from ..helpers import metrics
from .helpers import REGULARIZERS, largest_difference, maker, makers, train_apart, train_stacked

STEPS = 50


def rows_apart(tmp_path: Path, number: int) -> list[list[dict[str, Any]]]:
    return [metrics(tmp_path / kind / str(number)) for kind in ("apart", "stacked")]


def test_in_float64_to_1e_10_over_50_steps_with_every_regularizer_and_rate(
    shards: Path, tmp_path: Path
) -> None:
    options = {"precision": "64-true", "max_steps": STEPS, "max_epochs": -1}
    schedule = {"lr_scheduler": lambda optimizer: WarmupDecay(optimizer, None, 3, 5)}
    apart = train_apart(makers(**schedule), shards, tmp_path / "apart", **options)
    stacked, trainer = train_stacked(makers(**schedule), shards, tmp_path / "stacked", **options)
    assert trainer.global_step == STEPS
    for number, (one, member) in enumerate(zip(apart, stacked.members, strict=True)):
        assert member.failure is None
        assert largest_difference(one, member.module) < 1e-10
        counters = member.module.dead_latents.tokens_since_fired
        assert counters.equal(one.dead_latents.tokens_since_fired)
        mine, theirs = rows_apart(tmp_path, number)
        assert [list(row) for row in mine] == [list(row) for row in theirs]
        assert len(mine) == STEPS + 5  # a validation after each epoch of 10 steps
        for row, other in zip(mine, theirs, strict=True):
            assert other == pytest.approx(row, abs=1e-10, rel=1e-10)
        assert sum(row.get("train/aux_k", 0) > 0 for row in theirs) > 10  # AuxK acts


def test_what_a_rule_learns_is_learned_as_in_a_run_of_its_own(shards: Path, tmp_path: Path) -> None:
    makes = [maker(None, rate, selection=JumpReLU(3)) for rate in (0.01, 0.02)]
    apart = train_apart(makes, shards, tmp_path / "apart", precision="64-true")
    stacked, _ = train_stacked(makes, shards, tmp_path / "stacked", precision="64-true")
    for one, member in zip(apart, stacked.members, strict=True):
        assert largest_difference(one, member.module) < 1e-10


def test_in_float32_losses_agree_to_1e_4(shards: Path, tmp_path: Path) -> None:
    options = {"max_steps": STEPS, "max_epochs": -1}
    train_apart(makers(), shards, tmp_path / "apart", **options)
    train_stacked(makers(), shards, tmp_path / "stacked", **options)
    for number in range(len(REGULARIZERS)):
        mine, theirs = rows_apart(tmp_path, number)
        losses = [[row["train/loss"] for row in rows if "train/loss" in row]
                  for rows in (mine, theirs)]  # fmt: skip
        assert len(losses[0]) == STEPS
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an optimizer of torch": ({"optimizer": lambda p: torch.optim.SGD(p, lr=0.05)}, {}),
    "narrow moments": ({"optimizer": lambda p: SAEAdam(p, lr=0.01, state_dtype="bfloat16")}, {}),
    "clipped by norm": ({}, {"gradient_clip_val": 0.1}),
    "clipped by value": ({}, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    "accumulated": ({}, {"accumulate_grad_batches": 3}),
    "part of the epoch, validation within": (
        {}, {"limit_train_batches": 7, "val_check_interval": 4}
    ),
    "by row": ({"normalization": "layer_norm"}, {}),
    "no AuxK": ({"aux_k": None}, {}),
    "fewer of the dead": ({"aux_k": AuxK(k_aux=1, dead_after=16, weight=0.5)}, {}),
    "decoupled decay": (
        {"optimizer": lambda p: SAEAdam(p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True)},
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
def test_so_it_does_with(setting: str, shards: Path, tmp_path: Path) -> None:
    of_module, of_trainer = SETTINGS[setting]
    makes = makers(**of_module)[:5]
    options = {"precision": "64-true", **of_trainer}
    apart = train_apart(makes, shards, tmp_path / "apart", **options)
    stacked, _ = train_stacked(makes, shards, tmp_path / "stacked", **options)
    # Moments of bfloat16 are rounded: what is a bit apart can become a step of theirs.
    tolerance = 1e-3 if setting == "narrow moments" else 1e-10
    for number, (one, member) in enumerate(zip(apart, stacked.members, strict=True)):
        assert largest_difference(one, member.module) < tolerance
        mine, theirs = rows_apart(tmp_path, number)
        assert [(row["step"], list(row)) for row in mine] == [
            (row["step"], list(row)) for row in theirs
        ]


@pytest.mark.filterwarnings("ignore:OffSupportL1. weight_warmup = 100 is longer than the run")
def test_a_warm_up_of_lambda_and_a_penalty_on_the_code_take_turns_and_agree(
    shards: Path, tmp_path: Path
) -> None:
    regularizers = [L1L2Ratio(0.05, weight_warmup=9), MonosemanticityLoss(0.1), None,
                    OffSupportL1(0.1, weight_warmup=100)]  # fmt: skip
    makes = [maker(regularizer, 0.01) for regularizer in regularizers]
    apart = train_apart(makes, shards, tmp_path / "apart", precision="64-true")
    stacked, _ = train_stacked(makes, shards, tmp_path / "stacked", precision="64-true")
    for number, (one, member) in enumerate(zip(apart, stacked.members, strict=True)):
        assert largest_difference(one, member.module) < 1e-10
        mine, theirs = rows_apart(tmp_path, number)
        for row, other in zip(mine, theirs, strict=True):
            assert other == pytest.approx(row, abs=1e-10, rel=1e-10)


def test_mixed_precision_takes_turns_and_agrees(shards: Path, tmp_path: Path) -> None:
    makes = makers()[:3]
    apart = train_apart(makes, shards, tmp_path / "apart", precision="bf16-mixed")
    stacked, _ = train_stacked(makes, shards, tmp_path / "stacked", precision="bf16-mixed")
    for one, member in zip(apart, stacked.members, strict=True):
        assert largest_difference(one, member.module) == 0


def test_blocks_of_members_change_nothing(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train_stacked(makers(), shards, tmp_path / "a", precision="64-true")
    monkeypatch.setattr(joint_gradients, "_TOGETHER_BYTES", 2 * 16 * 24 * 8)
    split, _ = train_stacked(makers(), shards, tmp_path / "b", precision="64-true")
    for one, other in zip(whole.members, split.members, strict=True):
        assert largest_difference(one.module, other.module) < 1e-12


def test_what_is_too_large_takes_turns(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train_stacked(makers(), shards, tmp_path / "a", precision="64-true")
    monkeypatch.setattr(joint_gradients, "_LARGEST_BYTES", 1)
    turns, _ = train_stacked(makers(), shards, tmp_path / "b", precision="64-true")
    for one, other in zip(whole.members, turns.members, strict=True):
        assert largest_difference(one.module, other.module) < 1e-10


def test_members_are_views_into_the_stack() -> None:
    modules = [make() for make in makers(d_in=6)[:3]]
    stack = parameters.ParameterStack(modules)
    stack.values["b_enc"][1] = 7
    assert modules[1].sae.b_enc.eq(7).all() and not modules[0].sae.b_enc.any()
    stack.keep([0, 2])
    stack.values["b_enc"][1] = 5
    assert modules[1].sae.b_enc.eq(7).all() and modules[2].sae.b_enc.eq(5).all()
