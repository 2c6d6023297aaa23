"""What training steps cost beside one another: the same batch through each, in turn."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from replication.training import Fit, Setting, Training
from torch import Tensor

from lightsae.sae import SparseAutoencoder


class Trained(NamedTuple):
    """An autoencoder whose steps are timed."""

    sae: SparseAutoencoder
    fit: Fit
    setting: Setting


class StepTime(NamedTuple):
    """Time of a training step in units of that of the first one.

    Attributes:
        median: Over rounds, each step by the first one's of its round.
        low: The lower quartile.
        high: The upper quartile.
        milliseconds: Median of the steps themselves.
    """

    median: float
    low: float
    high: float
    milliseconds: float


def step_times(trained: Mapping[str, Trained], x: Tensor, rounds: int = 60) -> dict[str, StepTime]:
    """Processor time of a step of each, with one thread and the weights as training left them.

    Args:
        trained: By name; the first is what the others are measured by.
        x: Training rows, [rows, d_in].
        rounds: Steps of each that count.
    """
    torch.set_num_threads(1)
    trainings = [_continued(each, len(x)) for each in trained.values()]
    setting = next(iter(trained.values())).setting
    warmup = _until_dead(setting) + 1
    generator = torch.Generator().manual_seed(0)
    seconds = torch.empty(warmup + rounds, len(trainings), dtype=torch.float64)
    for of_round in seconds:
        batch = x[torch.randint(len(x), (setting.batch_size,), generator=generator)]
        for place, training in enumerate(trainings):
            began = time.process_time()
            training.step(batch)
            of_round[place] = time.process_time() - began
    return dict(zip(trained, _summaries(seconds[warmup:]), strict=True))


def _until_dead(setting: Setting) -> int:
    """Steps before which AuxK takes no latent for dead."""
    rows = setting.aux_k.dead_after_rows(setting.d_sae, setting.k)
    return math.ceil(rows / setting.batch_size)


def _continued(trained: Trained, rows: int) -> Training:
    """Steps that leave the weights as they are, with the whole lambda."""
    setting = replace(trained.setting, learning_rate=0.0, warmup_share=0.0)
    sae = trained.sae.requires_grad_(True).train()
    return Training(sae, trained.fit, setting, rows)


def _summaries(seconds: Tensor) -> list[StepTime]:
    """Of seconds [rounds, autoencoders]."""
    relative = seconds / seconds[:, :1]
    quartiles = relative.quantile(torch.tensor([0.5, 0.25, 0.75]).double(), dim=0)
    milliseconds = 1000 * seconds.quantile(0.5, dim=0)
    return [
        StepTime(*found, each)
        for found, each in zip(quartiles.T.tolist(), milliseconds.tolist(), strict=True)
    ]
