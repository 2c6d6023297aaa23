"""Class logits under ablation and amplification of latents, beside those of random latents."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models import weights_hash
from lightsae.errors import LightsaeError
from lightsae.interventions.class_effects.result import ClassEffects, LogitChange
from lightsae.interventions.eval_mode import require_eval
from lightsae.interventions.finding.layer_features import present_places
from lightsae.interventions.finding.model_calls import Inputs, call, tracked
from lightsae.interventions.finding.scaled_pairs import firing_pairs, scaled_outputs
from lightsae.interventions.hooks.attach import Attached, attach
from lightsae.interventions.hooks.layer_code import Latents, checked_latents
from lightsae.sae import SparseAutoencoder

# Controls are drawn from so many times as many latents, those nearest in firing rate.
_CANDIDATES = 4


@torch.no_grad()
def measure_class_effects(
    model: nn.Module,
    layer: str,
    sae: SparseAutoencoder,
    batches: Iterable[Inputs],
    *,
    latents: Latents,
    amplify: float = 2.0,
    n_random: int = 20,
    seed: int = 0,
    positions: Sequence[int] | None = None,
    logits: Callable[[Any], Tensor] | None = None,
    batch_size: int = 64,
    show_progress: bool = True,
) -> ClassEffects:
    """Whether latents cause what a classifier says: its logits with a latent ablated or amplified.

    A latent is run over the images where it fires. Ours: its controls are other latents, drawn from
    the 4 n_random that fire on the most similar number of images, and run over the images where
    they fire; the p-value for a class is the share of latent and controls whose mean change is as
    far from 0. The error term is kept.

    Args:
        model: Classifier in eval mode.
        layer: Where.
        sae: Its autoencoder.
        batches: Images as the model takes them: tensors with the samples first, or mappings of
            keyword arguments. They are read twice.
        latents: Which.
        amplify: Factor of the amplification.
        n_random: Controls of each latent.
        seed: Of the choice of controls.
        positions: Tokens where latents are looked for and changed, such as [0] for an autoencoder
            of class tokens; by default all that are no padding by an `attention_mask`.
        logits: Makes [B, classes] of what the model gives; by default that itself, or its `logits`.
        batch_size: Copies of images at once.
        show_progress: Show a bar on a terminal.

    Returns:
        Mean changes with standard errors and p-values, of every latent and class.

    Raises:
        LightsaeError: If there is no such layer, position or latent, the model is in training mode,
            fewer than n_random others fire, batches are empty, can be read once only or are others
            the second time, or logits are not [B, classes] and finite.

    Example:
        >>> from lightsae.sae import TopK
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        >>> sae = SparseAutoencoder(d_in=8, d_sae=16, selection=TopK(4))
        >>> found = measure_class_effects(
        ...     model, "0", sae, torch.randn(2, 10, 4), latents=[3], n_random=5
        ... )
        >>> found.images, found.ablation.mean.shape, found.controls.shape
        (20, torch.Size([1, 3]), torch.Size([1, 5]))
    """
    wanted = checked_latents(latents, sae.d_sae).cpu()
    _require_settings(batches, amplify, n_random, batch_size)
    require_eval(model, "model")
    read = partial(_logits, logits)
    with attach(model, {layer: sae}) as attached:
        firing_batches = tracked(batches, "firing", show_progress)
        images, firing = _firing_images(
            attached, model, layer, firing_batches, sae.d_sae, positions
        )
        controls = _controls(wanted, firing, n_random, seed)
        run = torch.cat([wanted, controls.flatten()]).unique()
        sums = {factor: _Sums(run, sae.d_sae) for factor in (0.0, amplify)}
        for batch in tracked(batches, "logits", show_progress):
            with attached.record() as recording:
                before = read(call(model, batch), recording[layer].lead[0])
            present = present_places(batch, recording[layer].lead)
            pairs = firing_pairs(recording[layer], run, layer, positions, present)
            for factor, found in sums.items():
                for part, after in scaled_outputs(
                    attached,
                    model,
                    layer,
                    batch,
                    pairs,
                    factor,
                    read,
                    batch_size=batch_size,
                    positions=positions,
                    present=present,
                ):
                    found.add(pairs.latents[part].cpu(), after - before[pairs.samples[part].cpu()])
    if not torch.equal(sums[amplify].images, firing[run]):
        raise LightsaeError(
            "batches differ between their two readings, expected the same images: no random crops"
        )
    ablation, amplification = (each.change(wanted, controls) for each in sums.values())
    return ClassEffects(
        layer, weights_hash(sae), sae.d_sae, images, float(amplify), seed, wanted,
        firing[wanted], controls, ablation, amplification,
    )  # fmt: skip


def _require_settings(
    batches: Iterable[Inputs], amplify: float, n_random: int, batch_size: int
) -> None:
    if isinstance(batches, Iterator):
        raise LightsaeError("batches can be read once only, expected a list or a loader")
    if not math.isfinite(amplify) or amplify in (0, 1):
        raise LightsaeError(f"amplify is {amplify}, expected a factor other than 0 and 1")
    for name, number in (("n_random", n_random), ("batch_size", batch_size)):
        if number < 1:
            raise LightsaeError(f"{name} is {number}, expected 1 or more")


def _firing_images(
    attached: Attached,
    model: nn.Module,
    layer: str,
    batches: Iterable[Inputs],
    d_sae: int,
    positions: Sequence[int] | None,
) -> tuple[int, Tensor]:
    """Number of images, and on how many of them each latent fires, [d_sae] int64."""
    images, firing = 0, torch.zeros(d_sae, dtype=torch.long)
    for batch in batches:
        with attached.record() as recording:
            call(model, batch)
        present = present_places(batch, recording[layer].lead)
        pairs = firing_pairs(recording[layer], torch.arange(d_sae), layer, positions, present)
        images += pairs.batch
        firing += torch.bincount(pairs.latents.cpu(), minlength=d_sae)
    if not images:
        raise LightsaeError("batches is empty, expected one batch or more")
    return images, firing


def _controls(latents: Tensor, firing: Tensor, n_random: int, seed: int) -> Tensor:
    """Random latents of similar firing rate for each, [m, n_random] int64."""
    rate = firing.clamp(min=1).double().log()
    fires = firing > 0
    found = []
    for latent in latents.tolist():
        others = torch.nonzero(fires).flatten()
        others = others[others != latent]
        if len(others) < n_random:
            raise LightsaeError(
                f"n_random is {n_random}: besides latent {latent} only {len(others)} fire on these "
                "images"
            )
        order = (rate[others] - rate[latent]).abs().argsort(stable=True)
        near = others[order[: _CANDIDATES * n_random]].numpy()
        generator = np.random.default_rng([seed, latent])
        found.append(np.sort(generator.choice(near, n_random, replace=False)))
    return torch.from_numpy(np.stack(found))


def _logits(given: Callable[[Any], Tensor] | None, result: Any, batch: int) -> Tensor:
    """Logits of the model's output, [B, classes] float64 on the CPU."""
    if given is None:
        found = result if isinstance(result, Tensor) else getattr(result, "logits", result)
    else:
        found = given(result)
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != batch:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        who = "the model" if given is None else "logits"
        hint = ": logits=... makes them of it" if given is None else ""
        raise LightsaeError(f"{who} gives {shape}, expected logits [{batch}, classes]{hint}")
    if not found.isfinite().all():
        raise LightsaeError("logits hold NaN or inf, expected finite numbers")
    return found.double().cpu()


class _Sums:
    """Sums of changes and of their squares over images.

    Args:
        latents: Which, ascending, [u] int64.
        d_sae: Size of the dictionary.

    Attributes:
        images: On how many each was changed, [u] int64.
    """

    def __init__(self, latents: Tensor, d_sae: int) -> None:
        self._place = torch.full((d_sae,), -1)
        self._place[latents] = torch.arange(len(latents))
        self.images = torch.zeros(len(latents), dtype=torch.long)
        self._sum = self._square = torch.zeros(len(latents), 1, dtype=torch.float64)

    def add(self, latents: Tensor, change: Tensor) -> None:
        """Changes [pairs, classes] of the latents [pairs]."""
        place = self._place[latents]
        if self._sum.shape[1] != change.shape[1]:
            self._sum = self._sum.repeat(1, change.shape[1])
            self._square = self._square.repeat(1, change.shape[1])
        self.images += torch.bincount(place, minlength=len(self.images))
        self._sum = self._sum.index_add(0, place, change)
        self._square = self._square.index_add(0, place, change**2)

    def change(self, latents: Tensor, controls: Tensor) -> LogitChange:
        """What the latents change, beside their controls."""
        images = self.images.double().unsqueeze(1)
        mean = self._sum / images
        off = (self._square - images * mean**2).clamp(min=0)
        deviation = torch.where(images > 1, off / (images - 1), math.nan).sqrt()
        error = deviation / images.sqrt()
        own, others = mean[self._place[latents]], mean[self._place[controls]]
        further = (others.abs() >= own.abs().unsqueeze(1)).sum(dim=1)
        p = torch.where(own.isnan(), math.nan, (1 + further) / (1 + controls.shape[1]))
        one = controls.shape[1] == 1
        spread = torch.full_like(own, math.nan) if one else others.std(dim=1)
        figures = own, error[self._place[latents]], others.mean(dim=1), spread, p
        return LogitChange(*(figure.float() for figure in figures))
