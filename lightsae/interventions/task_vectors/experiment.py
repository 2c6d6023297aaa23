"""The experiment on a task vector: projected on latents, or raw in the layers that they choose."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightsae.dictionaries.subspaces.overlap import random_basis
from lightsae.errors import LightsaeError
from lightsae.interventions.eval_mode import require_eval
from lightsae.interventions.hooks.attach import require_saes
from lightsae.interventions.task_vectors.layer_sets import ordered, random_sets
from lightsae.interventions.task_vectors.projection import (
    EnergyKept,
    energy_kept,
    orthonormal_basis,
)
from lightsae.interventions.task_vectors.result import Arm, LayerReading, TaskVectorResult
from lightsae.interventions.task_vectors.specificity import Specificity, ranked_layers
from lightsae.interventions.task_vectors.task_vector import TaskVector
from lightsae.interventions.task_vectors.trials import Measure, Trials, joined, progress_bar
from lightsae.sae import SparseAutoencoder

BASE = "base"
TUNED = "fine-tuned"
PROJECTED = "span of latents"
RANDOM_SPAN = "random spans"
CHOSEN = "specific layers"
RANDOM_LAYERS = "random layers"
LAST = "least specific"
RULES = ("most specific first", "least specific first", "most energy first", "random")


def task_vector_experiment(
    model: nn.Module,
    vector: TaskVector,
    saes: Mapping[str, SparseAutoencoder],
    specificity: Mapping[str, Specificity],
    measure: Measure,
    *,
    n_layers: int,
    task: str = "task",
    draws: int = 40,
    scale: float = 1.0,
    seed: int = 0,
    curve: Sequence[int] | None = None,
    show_progress: bool = True,
) -> TaskVectorResult:
    """Whether autoencoders serve to filter a task vector or to choose its layers.

    As in arXiv 2605.28649. The arms: base; the whole vector; the vector projected in each layer on
    the decoder rows of its most task-specific latents; raw in the n_layers most specific layers.
    Ours, the controls: random subspaces of the same rank; random sets of as many layers (all
    others, where there are no more than draws); the least specific layers; and, along the number of
    layers, those with the most energy first.

    Args:
        model: The base model in eval mode; its weights come back whatever happens.
        vector: From the base to the fine-tuned model.
        saes: Of each layer of the vector its autoencoder.
        specificity: Of each layer, as of `layer_specificity`, from samples that measure does not
            use.
        measure: Whether each sample is answered rightly, of the set `task` and others: bool [n]
            each, by name, of the same samples in one order every time. Called about
            (2 draws + 5) times, and (3 + draws) times for each place of the curve.
        n_layers: Layers to choose.
        task: Name of the set that the fine-tuning was for.
        draws: Random subspaces and sets of layers.
        scale: Factor of the vector.
        seed: Of what is random.
        curve: Numbers of layers for the curves; by default from 1 to all.
        show_progress: Show a bar on a terminal.

    Returns:
        The arms with their scores, layer readings and curves.

    Raises:
        LightsaeError: If layers differ between the arguments, the vector is 0 in one, a number is
            out of range, the model is in training mode, or measure gives something else.
        MissingExtraError: If scipy is not installed.
    """
    layers = list(vector.layers)
    at = sorted(set(range(1, len(layers) + 1) if curve is None else curve))
    _require_layers(layers, saes, specificity)
    _require_numbers(layers, n_layers, draws, scale, at)
    require_eval(model, "model")
    if not vector.energy():
        raise LightsaeError("the task vector is 0: base and tuned have the same weights")
    rows = {layer: saes[layer].W_dec[specificity[layer].latents] for layer in layers}
    bases = {layer: orthonormal_basis(each) for layer, each in rows.items()}
    readings = {
        layer: LayerReading(
            specificity[layer].score,
            vector.energy([layer]) / vector.energy(),
            _kept(vector, layer, bases[layer], seed),
        )
        for layer in layers
    }
    with progress_bar(show_progress) as tick:
        trials = Trials(model, vector, measure, scale, task, tick)
        first = _whole(trials)
        arms = [*first, *_scalpel(trials, bases, draws, seed)]
        ranked = ranked_layers(specificity)
        arms += _stethoscope(trials, ranked, n_layers, draws, seed)
        by_energy = sorted(layers, key=lambda layer: -readings[layer].energy)
        orders = (ranked, ranked[::-1], by_energy)
        curves = {
            rule: {n: trials.arm(rule, [ordered(layers, order[:n])]) for n in at}
            for rule, order in zip(RULES, orders, strict=False)
        }
        curves[RULES[-1]] = {
            n: trials.arm(RULES[-1], random_sets(layers, n, draws, seed)) for n in at
        }
    return TaskVectorResult(task, n_layers, scale, seed, readings, tuple(arms), curves)


def _kept(vector: TaskVector, layer: str, basis: Tensor, seed: int) -> EnergyKept:
    changes = {name: vector.changes[name] for name in vector.names([layer])}
    try:
        return energy_kept(changes, basis, seed=seed)
    except LightsaeError as error:
        raise LightsaeError(f"layer {layer}: {error}") from error


def _whole(trials: Trials) -> list[Arm]:
    """Nothing and everything."""
    base = Arm(BASE, (), 0.0, *joined([trials.now()]))
    with trials.vector.injected(trials.model, scale=trials.scale):
        tuned = Arm(TUNED, tuple(trials.vector.layers), 1.0, *joined([trials.now()]))
    return [base, tuned]


def _scalpel(trials: Trials, bases: Mapping[str, Tensor], draws: int, seed: int) -> list[Arm]:
    """The vector on the span of latents, and on random subspaces of the same ranks."""
    generator = torch.Generator().manual_seed(seed)
    energy, scores = trials.filtered(bases)
    found = [
        trials.filtered(
            {layer: random_basis(len(b), b.shape[1], generator) for layer, b in bases.items()}
        )
        for _ in range(draws)
    ]
    mean = sum(energy for energy, _ in found) / draws
    layers = tuple(bases)
    return [
        Arm(PROJECTED, layers, energy, *joined([scores])),
        Arm(RANDOM_SPAN, layers, mean, *joined([scores for _, scores in found])),
    ]


def _stethoscope(
    trials: Trials, ranked: Sequence[str], n_layers: int, draws: int, seed: int
) -> list[Arm]:
    """The raw vector in the chosen layers, in random and in the last ones."""
    layers = list(trials.vector.layers)
    chosen = ordered(layers, ranked[:n_layers])
    others = random_sets(layers, n_layers, draws, seed, without=chosen)
    return [
        trials.arm(CHOSEN, [chosen]),
        trials.arm(RANDOM_LAYERS, others),
        trials.arm(LAST, [ordered(layers, ranked[-n_layers:])]),
    ]


def _require_layers(
    layers: Sequence[str],
    saes: Mapping[str, SparseAutoencoder],
    specificity: Mapping[str, Specificity],
) -> None:
    for name, given in (("saes", saes), ("specificity", specificity)):
        if set(given) != set(layers):
            odd = sorted(set(given) ^ set(layers))[0]
            raise LightsaeError(f"{name} and the task vector differ in layer {odd}")
    require_saes(saes)
    for layer, sae in saes.items():
        score, latents, _ = specificity[layer]
        outside = latents[(latents < 0) | (latents >= sae.d_sae)]
        if len(outside) or not math.isfinite(score):
            what = f"latent {int(outside[0])}" if len(outside) else f"score {score}"
            raise LightsaeError(
                f"specificity of layer {layer} has {what}, expected a finite score and latents of "
                f"its autoencoder, in [0, d_sae = {sae.d_sae})"
            )


def _require_numbers(
    layers: Sequence[str], n_layers: int, draws: int, scale: float, at: Sequence[int]
) -> None:
    if len(layers) < 2:
        raise LightsaeError(f"the task vector has only layer {layers[0]}, expected 2 or more")
    if not 1 <= n_layers < len(layers):
        raise LightsaeError(f"n_layers is {n_layers}, expected 1 to {len(layers) - 1}")
    if draws < 2:
        raise LightsaeError(f"draws is {draws}, expected 2 or more")
    if at and not 1 <= at[0] <= at[-1] <= len(layers):
        raise LightsaeError(f"curve: {list(at)}, expected numbers from 1 to {len(layers)}")
    if not math.isfinite(scale):
        raise LightsaeError(f"scale is {scale}, expected a finite factor")
