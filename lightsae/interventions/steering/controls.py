"""The arms of a steering, made from the examples: ranked latents, controls, raw direction."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interventions.finding import LatentRanking, LayerFeatures
from lightsae.interventions.steering.arms import (
    Arm,
    Cell,
    LatentArm,
    RawArm,
    steering_edit,
)
from lightsae.interventions.steering.options import SteeringOptions
from lightsae.interventions.steering.result import RANKED
from lightsae.interventions.steering.task import Labels, SteeringTask
from lightsae.sae import SparseAutoencoder, Transcoder
from lightsae.sae.normalization import row_statistics

SHUFFLED, RAW, RANDOM = "shuffled labels", "raw direction", "random latents"
# From how many latents of nearest density one is drawn.
_NEAREST = 10
_SHUFFLE, _DRAW = 1, 2


def make_arms(task: SteeringTask, layers: list[str], options: SteeringOptions) -> list[Arm]:
    """Find latents on the task's examples and make all arms.

    Args:
        task: The task.
        layers: Those that are steered.
        options: Which controls.

    Returns:
        The arm of ranked latents, then the controls.

    Raises:
        LightsaeError: If labels, features or a ranking are not what they should be, or too few
            latents are left for a control.
    """
    batches, given = task.examples()
    labels = np.asarray(given)
    _require_labels(labels)
    found = task.features(batches)
    features = {layer: _checked(found, layer, task.saes[layer], labels) for layer in layers}
    ranked = _ranked(RANKED, task, features, labels, options)
    arms: list[Arm] = [ranked]
    if "random" in options.controls:
        arms += [
            _random(ranked, features, options, draw) for draw in range(1, options.n_random + 1)
        ]
    if "shuffled" in options.controls:
        shuffled = np.random.default_rng([options.seed, _SHUFFLE]).permutation(labels)
        arms.append(_ranked(SHUFFLED, task, features, shuffled, options))
    if "raw" in options.controls:
        arms.append(_raw(ranked, task, features, labels, options))
    return arms


def _require_labels(labels: Labels) -> None:
    if labels.ndim != 1 or not np.isin(labels, (0, 1)).all():
        raise LightsaeError("examples: labels must be one axis of 0 and 1")
    for label in (0, 1):
        if not (labels == label).any():
            raise LightsaeError(f"examples: no sample has label {label}, expected both classes")


def _checked(
    found: Mapping[str, LayerFeatures], layer: str, sae: SparseAutoencoder, labels: Labels
) -> LayerFeatures:
    if layer not in found:
        raise LightsaeError(f"features: none of layer {layer!r}, there are {', '.join(found)}")
    rows, wanted = found[layer].codes.shape, (len(labels), sae.d_sae)
    if rows != wanted:
        raise LightsaeError(f"features of {layer!r}: codes are {rows}, expected {wanted}")
    return found[layer]


def _ranked(
    name: str,
    task: SteeringTask,
    features: Mapping[str, LayerFeatures],
    labels: Labels,
    options: SteeringOptions,
) -> LatentArm:
    """The latents that a task ranks first by some labels."""
    most, rankings = max(options.counts), {}
    for layer, each in features.items():
        ranking = task.ranking(each, labels)
        latents = np.asarray(ranking.latents, np.int64)[:most]
        d_sae = each.codes.shape[1]
        if len(latents) < most:
            raise LightsaeError(
                f"counts: {most} latents are to be steered, the ranking of {layer!r} has "
                f"{len(latents)}"
            )
        if len(set(latents)) < most or latents.min() < 0 or latents.max() >= d_sae:
            raise LightsaeError(f"ranking of {layer!r}: expected distinct latents below {d_sae}")
        signs = np.asarray(ranking.signs)[:most]
        means = np.asarray(ranking.mean_active, np.float32)[:most]
        if not np.isin(signs, (-1, 1)).all() or not np.isfinite(means).all():
            raise LightsaeError(f"ranking of {layer!r}: expected signs of 1 or -1, finite means")
        rankings[layer] = LatentRanking(latents, signs, means)
    return LatentArm(name, rankings)


def _random(
    ranked: LatentArm, features: Mapping[str, LayerFeatures], options: SteeringOptions, draw: int
) -> LatentArm:
    """In place of each ranked latent one that fires about as often, with its sign."""
    rankings = {}
    for place, (layer, ranking) in enumerate(ranked.rankings.items()):
        generator = np.random.default_rng([options.seed, _DRAW, draw, place])
        fires = (features[layer].codes != 0).sum(axis=0)
        latents = drawn_latents(np.asarray(fires).ravel(), ranking.latents, generator, layer)
        rankings[layer] = LatentRanking(
            latents, ranking.signs, _mean_active(features[layer], latents)
        )
    return LatentArm(f"{RANDOM} {draw}", rankings)


def drawn_latents(
    fires: Labels, ranked: Labels, generator: np.random.Generator, layer: str
) -> Labels:
    """Of each ranked latent another at random among the ten that fire about as often.

    Args:
        fires: On how many samples each latent fires, [d_sae].
        ranked: The latents that are replaced, [m].
        generator: Draws.
        layer: Name, for the message.

    Returns:
        As many other latents, none twice.

    Raises:
        LightsaeError: If there are not as many others.

    Example:
        >>> fires, ranked = np.array([9, 1, 8, 2]), np.array([0, 1])
        >>> sorted(drawn_latents(fires, ranked, np.random.default_rng(0), "layer").tolist())
        [2, 3]
    """
    free = np.setdiff1d(np.arange(len(fires)), ranked)
    if len(free) < len(ranked):
        raise LightsaeError(
            f"counts: of {len(fires)} latents of {layer!r} {len(free)} are left to draw "
            f"{len(ranked)} random ones from; take fewer or leave out the control 'random'"
        )
    found = []
    for latent in ranked:
        apart = np.abs(fires[free] - fires[latent])
        nearest = np.argsort(apart, kind="stable")[:_NEAREST]
        place = generator.choice(nearest)
        found.append(free[place])
        free = np.delete(free, place)
    return np.array(found, np.int64)


def _mean_active(features: LayerFeatures, latents: Labels) -> NDArray[np.float32]:
    """Mean of each latent where it fires, 0 where it never does."""
    values = features.codes[:, latents].toarray()
    return values.sum(axis=0) / np.maximum((values != 0).sum(axis=0), 1)


def _raw(
    ranked: LatentArm,
    task: SteeringTask,
    features: Mapping[str, LayerFeatures],
    labels: Labels,
    options: SteeringOptions,
) -> RawArm:
    """The difference of the classes' mean activations, as long as the ranked latents' steps."""
    directions, norms = {}, {}
    for layer, each in features.items():
        sae = task.saes[layer]
        if isinstance(sae, Transcoder):
            raise LightsaeError(
                f"controls: 'raw' needs activations of the output, {layer!r} has a transcoder"
            )
        x = each.activations.astype(np.float64)
        apart = x[labels == 1].mean(axis=0) - x[labels == 0].mean(axis=0)
        size = np.linalg.norm(apart)
        if not np.isfinite(size) or size == 0:
            raise LightsaeError(f"features of {layer!r}: the classes' means do not differ")
        toward = 1 if options.toward == 1 else -1
        directions[layer] = torch.from_numpy(toward * apart / size).float()
        shifts = [
            _mean_shift(ranked.rankings[layer], each, sae, options, cell) for cell in options.cells
        ]
        norms[layer] = torch.tensor(shifts, dtype=torch.float64)
    return RawArm(RAW, directions, norms, options.cells)


def _mean_shift(
    ranking: LatentRanking,
    features: LayerFeatures,
    sae: SparseAutoencoder,
    options: SteeringOptions,
    cell: Cell,
) -> float:
    """How far a cell moves the activation of a layer, the mean l2 norm over the examples.

    Ours: the edit is applied to the pooled codes; of the additive kind that is exact, as it moves
    every position by the same vector.

    Args:
        ranking: Latents of the layer.
        features: Of the examples.
        sae: Their autoencoder.
        options: Kind and direction.
        cell: Strength and number of latents.
    """
    strength, count = cell
    latents = ranking.latents[:count]
    old = torch.from_numpy(_columns(features, latents)).to(sae.W_dec.dtype)
    change = steering_edit(ranking, options, strength, count).new(old) - old
    with torch.no_grad():
        moved = change @ sae.W_dec[torch.as_tensor(latents)].cpu() * _units(features, sae)
    return float(moved.norm(dim=1).mean())


def _columns(features: LayerFeatures, latents: NDArray[np.int64]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = features.codes[:, np.asarray(latents)].toarray()
    return found


def _units(features: LayerFeatures, sae: SparseAutoencoder) -> Tensor:
    """What a decoded change is multiplied by in the units of the activations, [1] or [n, 1]."""
    statistics = row_statistics(torch.from_numpy(features.activations), sae.normalization)
    return sae.scale.cpu().reshape(1) if statistics is None else statistics[:, 1:]
