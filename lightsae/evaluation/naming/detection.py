"""Input detector: whether latents fire on the samples that carry their word."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.interventions import attach, contrast
from lightsae.interventions.finding.layer_features import present_places
from lightsae.interventions.finding.model_calls import Inputs, call, tracked
from lightsae.interventions.hooks.places import Places
from lightsae.sae import SparseAutoencoder


@torch.no_grad()
def largest_activations(
    model: nn.Module,
    layer: str,
    sae: SparseAutoencoder,
    batches: Iterable[Inputs],
    latents: Tensor,
    positions: Sequence[int] | None = None,
    *,
    show_progress: bool = True,
) -> Array:
    """The largest activation of each of some latents in each sample, [N, m].

    Args:
        model: In eval mode.
        layer: Where.
        sae: Its autoencoder.
        batches: Inputs; padding by an `attention_mask` counts for nothing.
        latents: Which [m], int64.
        positions: At which tokens; by default any.
        show_progress: Show a bar on a terminal.

    Raises:
        LightsaeError: If batches are empty, or there is no such layer or position.
    """
    parts = []
    with attach(model, {layer: sae}) as attached:
        for batch in tracked(batches, "codes", show_progress):
            with attached.record() as recording:
                call(model, batch)
            seen = recording[layer]
            here = Places(positions).rows(seen.lead, None, layer)
            present = present_places(batch, seen.lead)
            if present is not None:
                here &= present.cpu()
            values = seen.columns(latents).cpu().reshape(*here.shape, len(latents))
            parts.append(values.masked_fill(~here.unsqueeze(2), 0).amax(dim=1).float())
    if not parts:
        raise LightsaeError("batches is empty, expected one batch or more")
    return torch.cat(parts).numpy()


def detection(
    activations: Array, has: Callable[[int], Array], words: Tensor, top: int
) -> dict[str, Array]:
    """How well each latent tells samples that carry its word from others.

    Args:
        activations: Of each latent in each sample [N, m].
        has: Of a word which samples carry it, bool [N].
        words: Of each latent its word [m], int64.
        top: Samples that precision is measured on.

    Returns:
        `auroc`, its p-value `p`, `precision` and `base_rate`, [m] float64 each; NaN where a latent
        never fires, or the word does not tell samples apart.
    """
    fires = np.asarray((activations > 0).any(axis=0))
    names = ("auroc", "p", "precision", "base_rate")
    found = {name: np.full(len(words), np.nan) for name in names}
    for word in words.unique().tolist():
        carry, here = has(word), np.flatnonzero((words == word).numpy())
        found["base_rate"][here] = carry.mean()
        for place in here[fires[here]]:
            found["precision"][place] = _precision(activations[:, place], carry, top)
        if carry.any() and not carry.all():
            seen = contrast(activations[:, here], carry.astype(int))
            found["auroc"][here] = seen.auroc
            found["p"][here] = np.where(fires[here], seen.p_value, np.nan)
    return found


def _precision(activations: Array, carry: Array, top: int) -> float:
    """Share that carries the word of the samples with the largest activations."""
    order = np.argsort(-activations, kind="stable")[:top]
    return float(carry[order[activations[order] > 0]].mean())
