"""Features of labelled inputs at several layers, in one pass over them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.interventions.finding.layer_features import (
    FeaturePooling,
    LayerFeatures,
    pooled,
    present_places,
    require_pooling,
)
from lightsae.interventions.finding.model_calls import call, tracked
from lightsae.interventions.hooks.attach import attach, require_saes
from lightsae.sae import SparseAutoencoder


@torch.no_grad()
def collect_features(
    model: nn.Module,
    saes: Mapping[str, SparseAutoencoder],
    batches: Iterable[Any],
    *,
    pooling: FeaturePooling = "mean_nonzero",
    forward: Callable[[nn.Module, Any], object] | None = None,
    show_progress: bool = True,
) -> dict[str, LayerFeatures]:
    """Codes and raw activations of samples, pooled over places.

    Where a batch is a mapping with an `attention_mask` [B, T] and a layer has as many places, those
    at which it is 0, left or right, are padding and count for nothing; "none" has no rows of them.

    Args:
        model: In eval mode, or it may learn from what it sees.
        saes: Of each layer its autoencoder.
        batches: Inputs of the model: tensors, or mappings of keyword arguments; anything that
            `forward` takes.
        pooling: "mean_nonzero" of a latent over the places where it fires and mean of raw
            activations over places (arXiv 2606.07473); "mean" or "max" of a latent over places;
            "none" for a row of each place.
        forward: What is called with model and batch; by default the model itself. It has to run
            every layer once.
        show_progress: Show a bar on a terminal.

    Returns:
        Of each layer its features, samples in the order of the batches.

    Raises:
        LightsaeError: If there are no batches, no such layer or pooling, or a batch is no input.
        MissingExtraError: If scipy is not installed.

    Example:
        >>> from lightsae.sae import TopK
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        >>> saes = {"0": SparseAutoencoder(d_in=8, d_sae=16, selection=TopK(4))}
        >>> found = collect_features(model, saes, torch.randn(5, 10, 3, 4), pooling="max")
        >>> found["0"].codes.shape, found["0"].activations.shape
        ((50, 16), (50, 8))
    """
    require_pooling(pooling)
    require_saes(saes)
    run = call if forward is None else forward
    parts: dict[str, list[LayerFeatures]] = {layer: [] for layer in saes}
    with attach(model, saes) as attached:
        for batch in tracked(batches, "codes", show_progress):
            with attached.record(activations=True) as recording:
                run(model, batch)
            for layer, found in parts.items():
                seen = recording[layer]
                found.append(pooled(seen, pooling, present_places(batch, seen.lead)))
        if not any(parts.values()):
            raise LightsaeError("batches is empty, expected one batch or more")
    return {layer: _joined(found) for layer, found in parts.items()}


def _joined(parts: list[LayerFeatures]) -> LayerFeatures:
    """The rows of all batches."""
    sparse = require("scipy.sparse", extra="evaluation")
    codes = sparse.vstack([part.codes for part in parts], format="csr")
    return LayerFeatures(codes, np.concatenate([part.activations for part in parts]))
