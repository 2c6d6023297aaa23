"""Autoencoders under any rule or loss take turns in a stack, and end as runs of their own."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.sae import (
    BankTopK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    L1L2Ratio,
    Matryoshka,
    MultiTopK,
    TopK,
)
from lightsae.training.stacked.joint_gradients import can_join

from ..helpers import K, metrics
from .helpers import maker, train_apart, train_stacked

RULES: dict[str, dict[str, Any]] = {
    "BatchTopK": {"selection": BatchTopK(K)},
    "JumpReLU": {"selection": JumpReLU(K)},
    "BankTopK": {"selection": BankTopK(keep=1, bank=8)},
    "GroupMax": {"selection": GroupMax(K)},
    "Matryoshka": {"selection": TopK(K), "reconstruction": Matryoshka([0.25, 0.5])},
    "MultiTopK": {"selection": TopK(K), "reconstruction": MultiTopK()},
}


@pytest.mark.parametrize("rule", RULES)
def test_batched_products_decline(rule: str) -> None:
    assert can_join(maker(None, 0.01, d_in=6)(), torch.randn(16, 6))
    assert not can_join(maker(None, 0.01, d_in=6, **RULES[rule])(), torch.randn(16, 6))


@pytest.mark.parametrize(("rule", "batches"), [*((rule, 1) for rule in RULES), ("JumpReLU", 3)])
def test_members_end_as_runs_of_their_own(
    rule: str, batches: int, shards: Path, tmp_path: Path
) -> None:
    makes = [maker(penalty, 0.01, **RULES[rule]) for penalty in (L1L2Ratio(0.05), None)]
    options = {"precision": "64-true", "accumulate_grad_batches": batches, "max_steps": 6}
    apart = train_apart(makes, shards, tmp_path / "apart", **options)
    stacked, _ = train_stacked(makes, shards, tmp_path / "stacked", **options)
    for number, (one, member) in enumerate(zip(apart, stacked.members, strict=True)):
        assert member.failure is None
        expected, found = one.sae.state_dict(), member.module.sae.state_dict()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-10, msg=name)
        kept = [metrics(tmp_path / kind / str(number)) for kind in ("apart", "stacked")]
        assert [list(row) for row in kept[0]] == [list(row) for row in kept[1]]
