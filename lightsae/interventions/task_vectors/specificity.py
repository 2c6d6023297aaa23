"""How specific to a task the latents of each layer are."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.interventions.finding.contrast import contrast
from lightsae.interventions.finding.labelled_rows import Labels
from lightsae.interventions.finding.layer_features import LayerFeatures


class Specificity(NamedTuple):
    """How specific a layer is.

    Attributes:
        score: Mean effect of its most task-specific latents.
        latents: Those, most specific first, [m] int64.
        effects: Their effects, [m] float64.
    """

    score: float
    latents: Tensor
    effects: Tensor


def layer_specificity(
    features: Mapping[str, LayerFeatures], labels: Labels, *, latents: int = 10
) -> dict[str, Specificity]:
    """Score each layer by the latents that stand out on the task (arXiv 2605.28649).

    Ours: the score is the mean, over the latents with the largest effect, of (mean on the task -
    mean on the control) / pooled standard deviation. Latents are chosen and scored on the same
    samples, so that scores of layers compare only at equal d_sae and samples.

    Args:
        features: Of each layer, as of `collect_features`.
        labels: 1 for samples of the task, 0 for controls, [n].
        latents: How many of each layer.

    Returns:
        Of each layer its specificity, in the order given.

    Raises:
        LightsaeError: If labels do not fit, a dictionary is smaller, or a latent that stands out
            does not vary within either set.
        MissingExtraError: If scipy is not installed.

    Example:
        >>> from scipy.sparse import csr_array
        >>> codes = csr_array([[0.0, 1.0], [1.0, 2.0], [4.0, 2.0], [5.0, 1.0]])
        >>> found = layer_specificity({"0": LayerFeatures(codes, None)}, [0, 0, 1, 1], latents=1)
        >>> found["0"].latents.tolist(), round(found["0"].score, 2)
        ([0], 5.66)
    """
    if latents < 1:
        raise LightsaeError(f"latents is {latents}, expected 1 or more")
    return {
        layer: _specificity(layer, contrast(each.codes, labels).effect, latents)
        for layer, each in features.items()
    }


def ranked_layers(specificity: Mapping[str, Specificity]) -> list[str]:
    """Layers, the most specific first; equal ones in the order given.

    Args:
        specificity: Of each layer.

    Example:
        >>> scores = {"0": 0.5, "1": 2.0}
        >>> ranked_layers({n: Specificity(s, torch.tensor([]), torch.tensor([])) for n, s in
        ...     scores.items()})
        ['1', '0']
    """
    return sorted(specificity, key=lambda layer: -specificity[layer].score)


def _specificity(layer: str, effect: Array, latents: int) -> Specificity:
    if len(effect) < latents:
        raise LightsaeError(f"latents is {latents}, layer {layer} has only {len(effect)}")
    most = np.argsort(-effect, kind="stable")[:latents].copy()
    if not np.isfinite(effect[most]).all():
        raise LightsaeError(
            f"layer {layer}: latent {most[0]} does not vary within task or control, expected more "
            "samples"
        )
    return Specificity(
        float(effect[most].mean()), torch.from_numpy(most), torch.from_numpy(effect[most])
    )
