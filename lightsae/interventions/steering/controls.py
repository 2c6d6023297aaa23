"""The arms of a steering, made from the examples: ranked latents, controls, raw direction."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.interventions.finding.latent_ranking import LatentRanking
from lightsae.interventions.finding.layer_features import LayerFeatures
from lightsae.interventions.steering.arms import (
    Arm,
    Cell,
    LatentArm,
    RawArm,
    steering_edit,
)
from lightsae.interventions.steering.options import SteeringOptions
from lightsae.interventions.steering.result import RANKED
from lightsae.interventions.steering.task import SteeringTask
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


def _require_labels(labels: Array) -> None:
    if labels.ndim != 1 or not np.isin(labels, (0, 1)).all():
        raise LightsaeError("examples: labels must be one axis of 0 and 1")
    for label in (0, 1):
        if not (labels == label).any():
            raise LightsaeError(f"examples: no sample has label {label}, expected both classes")


def _checked(
    found: Mapping[str, LayerFeatures], layer: str, sae: SparseAutoencoder, labels: Array
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
    labels: Array,
    options: SteeringOptions,
) -> LatentArm:
    """The latents that a task ranks first by some labels."""
    most = max(options.counts)
    rankings = {}
    for layer, each in features.items():
        ranking = LatentRanking(*(part[:most] for part in task.ranking(each, labels)))
        if len(ranking.latents) < most:
            raise LightsaeError(
                f"counts: {most} latents are to be steered, the ranking of {layer!r} by {name} has "
                f"{len(ranking.latents)}"
            )
        _require_ranking(ranking, f"ranking of {layer!r} by {name}", each.codes.shape[1])
        rankings[layer] = ranking
    return LatentArm(name, rankings)


def _require_ranking(ranking: LatentRanking, what: str, d_sae: int) -> None:
    latents, signs, means = ranking
    if len(latents.unique()) < len(latents) or not ((latents >= 0) & (latents < d_sae)).all():
        raise LightsaeError(f"{what}: expected distinct latents below d_sae = {d_sae}")
    if not (signs.abs() == 1).all() or not means.isfinite().all():
        raise LightsaeError(f"{what}: expected signs of 1 or -1 and finite means")


def _random(
    ranked: LatentArm, features: Mapping[str, LayerFeatures], options: SteeringOptions, draw: int
) -> LatentArm:
    """In place of each ranked latent one that fires about as often, with its sign."""
    rankings = {}
    for place, (layer, ranking) in enumerate(ranked.rankings.items()):
        generator = np.random.default_rng([options.seed, _DRAW, draw, place])
        fires = np.asarray((features[layer].codes != 0).sum(axis=0)).ravel()
        latents = drawn_latents(fires, ranking.latents.numpy(), generator, layer)
        means = torch.from_numpy(_mean_active(features[layer], latents)).float()
        rankings[layer] = LatentRanking(torch.from_numpy(latents), ranking.signs, means)
    return LatentArm(f"{RANDOM} {draw}", rankings)


def drawn_latents(fires: Array, ranked: Array, generator: np.random.Generator, layer: str) -> Array:
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


def _mean_active(features: LayerFeatures, latents: Array) -> Array:
    """Mean of each latent where it fires, 0 where it never does."""
    values = _columns(features, latents)
    means: Array = values.sum(axis=0) / np.maximum((values != 0).sum(axis=0), 1)
    return means


def _raw(
    ranked: LatentArm,
    task: SteeringTask,
    features: Mapping[str, LayerFeatures],
    labels: Array,
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
    old = torch.from_numpy(_columns(features, latents.numpy()))
    change = steering_edit(ranking, options, strength, count).new(old) - old
    with torch.no_grad():
        moved = change @ sae.W_dec[latents].float().cpu() * _units(features, sae)
    return float(moved.norm(dim=1).mean())


def _columns(features: LayerFeatures, latents: Array) -> Array:
    found: Array = features.codes[:, latents].toarray().astype(np.float32)
    return found


def _units(features: LayerFeatures, sae: SparseAutoencoder) -> Tensor:
    """What a decoded change is multiplied by in the units of the activations, [1] or [n, 1]."""
    statistics = row_statistics(torch.from_numpy(features.activations), sae.normalization)
    return sae.scale.float().cpu().reshape(1) if statistics is None else statistics[:, 1:]
