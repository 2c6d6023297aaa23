"""A member that fails is marked; the others end as if it had not been there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import AuxK, L1L2Ratio, OffSupportL1, Regularizer
from lightsae.training.stacked import Member, StackedModule

from ..helpers import make_trainer
from .helpers import Make, largest_difference, maker, train_apart, train_stacked


class FailsAt(Regularizer):
    """Raises, or returns NaN, at its n-th batch."""

    def __init__(self, weight: float, call: int, raises: bool) -> None:
        super().__init__(weight)
        self.left, self.raises = call, raises

    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0 and self.raises:
            raise RuntimeError("no such latent")
        return a.sum() * (torch.nan if self.left == 0 else 0.0)


HEALTHY = [maker(None, 0.01), maker(OffSupportL1(0.01), 0.02), maker(L1L2Ratio(0.05), 0.01)]
# What fails, at which step, and what is told.
FAILING: dict[str, tuple[Callable[[], Make], int, str]] = {
    "an error": (lambda: maker(FailsAt(1.0, 4, True), 0.01), 4, "RuntimeError: no such latent"),
    "a loss of NaN": (lambda: maker(FailsAt(1.0, 4, False), 0.01), 4, "the loss is nan"),
    # The squares of such weights are too large for float32; it has no regularizer and stands
    # among the first of the stack.
    "weights that are not finite": (lambda: maker(None, 1e38), 2, "NaN or inf"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_the_others_go_on(kind: str, shards: Path, tmp_path: Path) -> None:
    failing, step, why = FAILING[kind]
    apart = train_apart(HEALTHY, shards, tmp_path / "apart")
    stacked, trainer = train_stacked([*HEALTHY, failing()], shards, tmp_path / "stacked")
    *healthy, failed = stacked.members
    assert failed.failed_at == step and failed.failure is not None and why in failed.failure
    assert trainer.global_step == 20 and [member.failure for member in healthy] == [None] * 3
    for one, member in zip(apart, healthy, strict=True):
        assert largest_difference(one, member.module) < 1e-4  # float32 over 20 steps


def test_a_failed_member_keeps_its_last_finite_weights_and_logs_no_more(
    shards: Path, tmp_path: Path
) -> None:
    failing, step, _ = FAILING["an error"]
    stacked, _ = train_stacked([HEALTHY[0], failing()], shards, tmp_path)
    member = stacked.members[1]
    assert all(parameter.isfinite().all() for parameter in member.module.sae.parameters())
    rows = (tmp_path / "1" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == step - 1


def test_training_ends_where_all_have_failed(shards: Path, tmp_path: Path) -> None:
    makes = [maker(FailsAt(1.0, call, True), 0.01) for call in (3, 5)]
    stacked, trainer = train_stacked(makes, shards, tmp_path)
    assert [member.failed_at for member in stacked.members] == [3, 5]
    assert trainer.global_step < 20


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_a_batch_that_is_not_finite_is_no_member_s_fault(shards: Path, tmp_path: Path) -> None:
    module = StackedModule([Member.made("a", 0, HEALTHY[0])])
    loader = torch.utils.data.DataLoader([torch.full((6,), float(n)) for n in range(20)] +
                                         [torch.full((6,), torch.nan)], batch_size=7)  # fmt: skip
    module.members[0].module.init_rows = 14
    trainer = make_trainer(tmp_path, logger=False, limit_val_batches=0)
    with (
        pytest.warns(UserWarning, match="first 14"),
        pytest.raises(LightsaeError, match="a batch has NaN"),
    ):
        trainer.fit(module, loader)


def test_members_of_several_shapes_are_refused() -> None:
    members = [Member.made(str(d), 0, maker(None, 0.1, d_sae=d)) for d in (24, 32)]
    with pytest.raises(LightsaeError, match=r"one d_sae and k, got \[\(24, 3\), \(32, 3\)\]"):
        StackedModule(members)


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "another AuxK": ({"aux_k": AuxK(k_aux=2)}, "one aux_k, got .*k_aux=4.*k_aux=2"),
    "no AuxK": ({"aux_k": None}, "one aux_k, got .*, None"),
    "another normalization": ({"normalization": "none"}, "normalization, got variance, none"),
    "another centre": ({"centre": "geometric_median"}, "centre, got mean, geometric_median"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_members_that_the_same_batch_is_not_the_same_for_are_refused(kind: str) -> None:
    options, told = OTHERS[kind]
    makes = [maker(None, 0.1), maker(None, 0.1, **options)]
    with pytest.raises(LightsaeError, match=told):
        StackedModule([Member.made("a", 0, make) for make in makes])
