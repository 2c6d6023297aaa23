"""Functional test of names: input detector and output controller."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models import weights_hash
from lightsae.activations.shards.dtypes import Array
from lightsae.dictionaries import LatentNames
from lightsae.errors import LightsaeError
from lightsae.evaluation.naming.detection import detection, largest_activations
from lightsae.evaluation.naming.result import NameCheck, NameChecks
from lightsae.extras import require
from lightsae.interventions import measure_class_effects
from lightsae.interventions.class_effects.result import LogitChange
from lightsae.interventions.finding.model_calls import Inputs
from lightsae.sae import SparseAutoencoder


def check_names(
    model: nn.Module,
    layer: str,
    sae: SparseAutoencoder,
    batches: Iterable[Inputs],
    names: LatentNames,
    carries: Tensor,
    *,
    latents: Sequence[int] | None = None,
    logits: Callable[[Any], Tensor] | None = None,
    positions: Sequence[int] | None = None,
    top: int = 20,
    n_random: int = 20,
    alpha: float = 0.05,
    seed: int = 0,
    batch_size: int = 64,
    show_progress: bool = True,
) -> NameChecks:
    """Whether latents fire on what they are called, and make the model say it.

    Input detector: the AUROC of a latent's largest activation in a sample for whether the sample
    carries its word (p-value of the Mann-Whitney test, see `contrast`), and the share that carries
    it of the samples that activate it most.

    Output controller: what ablating the latent to zero does to the logit of its word less the mean
    logit of all words, so that a fall of all logits alike is none. Ours: that mean change is
    compared with those of `n_random` latents of similar firing rate on the same word as one more
    draw from a normal distribution of which they are a sample, one-sided (Student's t on n - 1
    degrees of freedom, variance times 1 + 1/n). Both p-values are adjusted by Benjamini and
    Hochberg over the latents that can be tested. VASAE (arXiv 2606.27941) asks both questions of
    its names; the statistics are ours.

    Args:
        model: In eval mode.
        layer: Where.
        sae: Its autoencoder.
        batches: Inputs of the model, in the order of `carries`; they are read three times. The
            p-values take samples to be independent: no altered copies of one image.
        names: Names of its latents.
        carries: Which words a sample carries: the word's place in `names.words` [N], integers; or
            bool [N, words], such as the tokens of texts.
        latents: Which named latents to test; by default all.
        logits: Makes [B, words] of what the model gives, in the order of `names.words`; by default
            that itself, or its `logits`. Of a language model, such as `lambda out: out.logits[:,
            -1, ids]` with the ids of the words' tokens, for texts padded on the left if at all.
        positions: Tokens where latents are looked for and ablated, such as [0] for an autoencoder
            of class tokens; by default all that are no padding.
        top: Samples that precision is measured on.
        n_random: Controls of each latent, at least 2.
        alpha: Rate of false discoveries, in (0, 1).
        seed: Of the choice of controls.
        batch_size: Copies of samples at once.
        show_progress: Show bars on a terminal.

    Returns:
        A check of each latent, and verdicts.

    Raises:
        LightsaeError: If no such latent is named, names are of another autoencoder, `carries` does
            not fit, a number is not as said, or as `measure_class_effects`.
        MissingExtraError: If scipy is not installed.
    """
    _require_names_of(sae, names)
    wanted = _wanted(names, latents)
    if top < 1 or n_random < 2 or not 0 < alpha < 1:
        raise LightsaeError(
            f"top is {top}, n_random {n_random}, alpha {alpha}: expected at least 1, at least 2 "
            "and a rate in (0, 1)"
        )
    activations = largest_activations(
        model, layer, sae, batches, wanted, positions, show_progress=show_progress
    )
    samples = len(activations)
    has = _carried(carries, samples, len(names.words))
    words, column = names.index[wanted].unique(return_inverse=True)
    effects = measure_class_effects(
        model, layer, sae, batches, latents=wanted, n_random=n_random, seed=seed,
        positions=positions, logits=partial(_relative, logits, words, len(names.words)),
        batch_size=batch_size, show_progress=show_progress,
    )  # fmt: skip
    seen = detection(activations, has, names.index[wanted], top)
    checks = _joined(names, wanted, seen, effects.ablation, column, effects.firing, n_random)
    return NameChecks(checks, layer, samples, top, n_random, alpha)


def _require_names_of(sae: SparseAutoencoder, names: LatentNames) -> None:
    """Refuse names that say that they are of another autoencoder, or must be."""
    if len(names.named) != sae.d_sae:
        raise LightsaeError(
            f"names are of {len(names.named)} latents, the autoencoder has {sae.d_sae}"
        )
    stamp = names.about.get("autoencoder")
    if stamp is not None and stamp != weights_hash(sae):
        raise LightsaeError("names are of another autoencoder: run `lightsae name` again")


def _wanted(names: LatentNames, latents: Sequence[int] | None) -> Tensor:
    """The latents to test, int64."""
    named = names.named.nonzero().flatten()
    if latents is None:
        if not len(named):
            raise LightsaeError("names: no latent has a name")
        return named
    nameless = sorted(set(latents) - set(named.tolist()))
    if nameless or not latents:
        told = f"latent {nameless[0]} has no name" if nameless else "expected one or more"
        raise LightsaeError(f"latents: {told}")
    return torch.tensor(sorted(set(latents)))


def _carried(carries: Tensor, samples: int, words: int) -> Callable[[int], Array]:
    """Of a word which samples carry it, bool [N]."""
    if carries.dtype == torch.bool and list(carries.shape) == [samples, words]:
        return lambda word: carries[:, word].cpu().numpy()
    if list(carries.shape) == [samples] and not carries.is_floating_point():
        return lambda word: (carries == word).cpu().numpy()
    raise LightsaeError(
        f"carries is {carries.dtype} {list(carries.shape)}, expected integers [{samples}] or bool "
        f"[{samples}, {words}]"
    )


def _relative(
    given: Callable[[Any], Tensor] | None, words: Tensor, n_words: int, result: Any
) -> Tensor:
    """Logits of some words less the mean of all, [B, m] float64."""
    found = given(result) if given is not None else getattr(result, "logits", result)
    if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] != n_words:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise LightsaeError(f"logits gives {shape}, expected [B, {n_words} words]")
    found = found.double()
    return (found - found.mean(dim=1, keepdim=True))[:, words.to(found.device)]


def _joined(
    names: LatentNames, latents: Tensor, seen: dict[str, Array], change: LogitChange,
    column: Tensor, firing: Tensor, n_random: int,
) -> list[NameCheck]:  # fmt: skip
    """Both tests of each latent, with p-values adjusted over all."""
    rows = torch.arange(len(latents))
    own, control, sd = (
        getattr(change, name)[rows, column].double().numpy()
        for name in ("mean", "control_mean", "control_sd")
    )
    detector_q, controller_q = _adjusted(seen["p"]), _adjusted(_below(own, control, sd, n_random))
    return [
        NameCheck(
            latent=latent, name=str(names.names[latent]), firings=int(firing[i]),
            base_rate=float(seen["base_rate"][i]), auroc=float(seen["auroc"][i]),
            precision=float(seen["precision"][i]), detector_q=float(detector_q[i]),
            change=float(own[i]), control_change=float(control[i]), control_sd=float(sd[i]),
            controller_q=float(controller_q[i]),
        )
        for i, latent in enumerate(latents.tolist())
    ]  # fmt: skip


def _below(own: Array, control: Array, sd: Array, n: int) -> Array:
    """One-sided p-values that a change is one more draw from the controls'; NaN without one."""
    stats = require("scipy.stats", extra="evaluation")
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (own - control) / (sd * np.sqrt(1 + 1 / n))
    # Controls that all change nothing leave no doubt about what changes something.
    t = np.where((sd == 0) & (own == control), 0.0, t)
    found: Array = np.where(np.isnan(own), np.nan, stats.t.cdf(t, df=n - 1))
    return found


def _adjusted(p: Array) -> Array:
    """Adjusted by Benjamini and Hochberg; NaN stays."""
    stats = require("scipy.stats", extra="evaluation")
    q, tested = np.full(len(p), np.nan), ~np.isnan(p)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested], method="bh")
    return q
