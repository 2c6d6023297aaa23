"""Variants of the planted steering."""

import os
import signal

import torch
from torch import Tensor, nn

from lightsae.interventions.examples.planted_steering import D_IN, PlantedTask
from lightsae.interventions.steering import Examples, GuardLimit, Measured, SteeringOptions
from lightsae.interventions.steering.task import Split

GRID = SteeringOptions(strengths=[0.25, 1.0, 2.0], counts=[1, 2], draws=2, bootstrap=200)


class AnyLatent(PlantedTask):
    """The alarm rings where all features together are large: any latent stops it as well."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _Sum().eval()
        self.guards = {}

    def measure(self, split: Split) -> dict[str, Measured]:
        total = self.model(self.data[split][0])
        return {"alarm": Measured(total, torch.ones(len(total)))}


class _Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).sum(dim=1)


class OwnEffects(PlantedTask):
    """Labels are coins; latents have effects of their own on the target and on what is guarded."""

    def __init__(self, seed: int) -> None:
        super().__init__(samples=100, seed=seed)
        self.model = _Sum().eval()
        generator = torch.Generator().manual_seed(seed)
        self.guards = {"useful": GuardLimit(fall=1.0)}
        for x, _ in self.data.values():
            x.copy_(torch.rand(x.shape, generator=generator))
        self.effects = torch.randn(2, D_IN, generator=generator)

    def measure(self, split: Split) -> dict[str, Measured]:
        alarm, useful = (self.model.layer(self.data[split][0]) @ self.effects.T).unbind(dim=1)
        ones = torch.ones(len(alarm))
        return {"alarm": Measured(alarm, ones), "useful": Measured(useful, ones)}


class Fragile(PlantedTask):
    """Whatever is taken from feature 3 is guarded too."""

    def __init__(self) -> None:
        super().__init__()
        self.guards = {"alarm's feature": GuardLimit(fall=1e-3)}

    def measure(self, split: Split) -> dict[str, Measured]:
        found = super().measure(split)
        return {"alarm": found["alarm"], "alarm's feature": found["alarm"]}


class BrokenOnTest(PlantedTask):
    """The guard holds on the split of the choice alone."""

    def measure(self, split: Split) -> dict[str, Measured]:
        found = super().measure(split)
        if split == "test":
            found["useful"] = found["alarm"]
        return found


class Killed(PlantedTask):
    """Ends its process without a word at some measurement."""

    def __init__(self, at: int, **options: int) -> None:
        super().__init__(**options)
        self.at = at

    def measure(self, split: Split) -> dict[str, Measured]:
        self.at -= 1
        if self.at == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().measure(split)


class Counted(PlantedTask):
    """Counts measurements, and is interrupted at one of them."""

    def __init__(self, interrupted_at: int = 0) -> None:
        super().__init__()
        self.measured = self.looked = 0
        self.interrupted_at = interrupted_at

    def examples(self) -> Examples:
        self.looked += 1
        return super().examples()

    def measure(self, split: Split) -> dict[str, Measured]:
        self.measured += 1
        if self.measured == self.interrupted_at:
            raise KeyboardInterrupt
        return super().measure(split)
