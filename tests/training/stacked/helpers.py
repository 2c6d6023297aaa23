"""Autoencoders that train stacked and, for comparison, one by one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightsae.sae import AuxK, L1L2Ratio, OffSupportL1, Regularizer, TopK
from lightsae.training import MetricsFile, SAEAdam, SAEModule
from lightsae.training.stacked import Member, StackedModule

from ..helpers import D_SAE, K, make_data, make_trainer

Make = Callable[[], SAEModule]


class SquaredOffSupport(Regularizer):
    """A regularizer of a user's own, through autograd."""

    def penalty(self, a: Tensor, indices: Tensor, batch_active: Tensor) -> Tensor:
        return (a.scatter(1, indices, 0.0) * batch_active).square().sum(dim=1).mean()


# Neither sorted by regularizer nor by learning rate.
REGULARIZERS: list[Regularizer | None] = [
    L1L2Ratio(0.05), None, OffSupportL1(0.01), None, SquaredOffSupport(0.02),
    OffSupportL1(0.1, batch_active_only=False), L1L2Ratio(0.01, False),
]  # fmt: skip
RATES = (0.01, 0.01, 0.02, 0.005, 0.01, 0.01, 0.005)


def maker(regularizer: Regularizer | None, lr: float, **options: Any) -> Make:
    """Makes a module whose latents die soon enough for AuxK to act."""
    defaults: dict[str, Any] = {
        "d_sae": D_SAE,
        "selection": TopK(K),
        "aux_k": AuxK(k_aux=4, dead_after=16),
        "optimizer": lambda parameters: SAEAdam(parameters, lr=lr),
    }
    return lambda: SAEModule(regularizer=regularizer, **(defaults | options))


def makers(**options: Any) -> list[Make]:
    """One for every regularizer."""
    pairs = zip(REGULARIZERS, RATES, strict=True)
    return [maker(regularizer, lr, **options) for regularizer, lr in pairs]


def train_apart(makes: Sequence[Make], shards: Path, out: Path, **options: Any) -> list[SAEModule]:
    """Each in a run of its own, seeds 10, 11, ..., logged to out/NUMBER."""
    modules = []
    for number, make in enumerate(makes):
        torch.manual_seed(10 + number)
        module = make()
        make_trainer(out / str(number), **options).fit(module, make_data(shards))
        modules.append(module)
    return modules


def train_stacked(
    makes: Sequence[Make], shards: Path, out: Path, callbacks: Any = (), **options: Any
) -> tuple[StackedModule, Trainer]:
    """All in one run with the same seeds, logged to out/NUMBER, its checkpoint in out."""
    module = StackedModule(
        [
            Member.made(str(n), 10 + n, make, MetricsFile(out / str(n) / "metrics.jsonl"))
            for n, make in enumerate(makes)
        ]
    )
    ckpt = out / "last.ckpt"
    trainer = make_trainer(out, callbacks=callbacks, logger=False, **options)
    trainer.fit(module, make_data(shards), ckpt_path=str(ckpt) if ckpt.exists() else None)
    return module, trainer


def largest_difference(one: SAEModule, other: SAEModule) -> float:
    """Over all parameters."""
    pairs = zip(one.sae.parameters(), other.sae.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)
