"""Baseline and regularizers on the same data: a grid, the paper's rule, then paired seeds.

lambda is the largest of the grid whose validation R2 is still at least the baseline's
(arXiv 2606.27321), by the mean difference over paired seeds; only after it is fixed is the test
split looked at.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer, seed_everything
from safetensors.torch import load_file
from torch import Tensor

from lightsae.activations import ActivationDataModule, ActivationLoader
from lightsae.metrics import R2, Monosemanticity
from lightsae.report import RunResult, paired_difference
from lightsae.sae import (
    AuxK,
    L1L2Ratio,
    OffSupportL1,
    Regularizer,
    SparseAutoencoder,
    SparseCode,
    TopK,
)
from lightsae.training import SAEAdam, SAEModule, WarmupDecay, quieten

BASELINE = "baseline"
REGULARIZERS: dict[str, type[Regularizer]] = {"Reg 1": OffSupportL1, "Reg 2": L1L2Ratio}
GRID = (0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Setting:
    """What all fits of a study share.

    Attributes:
        shards: Folder of activations, one row per image.
        embeddings: safetensors file with `embeddings` [images, d_embed] of another encoder, at
            row sample_index * copies + token_index.
        copies: Images per sample.
        d_sae: Size of the dictionary.
        k: Latents per image.
        epochs: Passes over the training split.
        batch_size: Rows per step.
        learning_rate: Of Adam, with a short warm-up and a linear decay to zero.
        dead_after: Tokens after which a latent counts as dead for AuxK.
    """

    shards: Path
    embeddings: Path
    copies: int
    d_sae: int = 256
    k: int = 8
    epochs: int = 30
    batch_size: int = 512
    learning_rate: float = 2e-3
    dead_after: int = 10_000


class Fit(NamedTuple):
    """One autoencoder to be trained: a variant, its lambda and a seed."""

    variant: str
    weight: float
    seed: int

    @property
    def folder(self) -> str:
        """Name of the folder that keeps the trained autoencoder."""
        return f"{self.variant.lower().replace(' ', '')}-{self.weight:g}-seed{self.seed}"


class Scores(NamedTuple):
    """A trained autoencoder on the validation and the test split."""

    fit: Fit
    validation: RunResult
    test: RunResult


def train(fit: Fit, setting: Setting, out: Path) -> Scores:
    """Train, save and score one autoencoder."""
    quieten()
    torch.set_num_threads(1)
    seed_everything(fit.seed, verbose=False)
    data = open_data(setting, fit.seed)
    total = setting.epochs * len(data.train_dataloader())
    regularizer = REGULARIZERS[fit.variant](fit.weight) if fit.variant in REGULARIZERS else None
    module = SAEModule(
        d_sae=setting.d_sae,
        selection=TopK(setting.k),
        regularizer=regularizer,
        aux_k=AuxK(k_aux=64, dead_after=setting.dead_after),
        optimizer=lambda p: SAEAdam(p, lr=setting.learning_rate),
        lr_scheduler=lambda o: WarmupDecay(o, total, total // 20, total // 5),
    )
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=setting.epochs, limit_val_batches=0,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    start = perf_counter()
    trainer.fit(module, data)
    seconds = perf_counter() - start
    module.sae.save(out / fit.folder)
    loaders = {"validation": data.val_dataloader(), "test": data.test_dataloader()}
    scores = {
        split: score(fit, module.sae, loader, setting, seconds) for split, loader in loaders.items()
    }
    return Scores(fit, scores["validation"], scores["test"])


@torch.no_grad()
def score(
    fit: Fit, sae: SparseAutoencoder, loader: ActivationLoader, setting: Setting, seconds: float
) -> RunResult:
    """R2, monosemanticity and dead latents over one split."""
    embeddings = load_file(setting.embeddings)["embeddings"]
    r2, ms = R2(sae.d_in), Monosemanticity(sae.d_sae, embeddings.shape[1])
    for code, x, image in encode_split(sae, loader, setting):
        r2.update(x_hat=sae.decode(code), x=x)
        ms.update(code, embeddings[image])
    scores = ms.compute()
    return RunResult(
        name=fit.variant, weight=fit.weight, seed=fit.seed, r2=float(r2.compute()),
        mean_ms=float(scores.mean), median_ms=float(scores.median), scored=scores.n_scored,
        dead=scores.n_dead, undefined=scores.n_undefined, seconds=seconds,
    )  # fmt: skip


def open_data(setting: Setting, seed: int) -> ActivationDataModule:
    """The shards, split by sample: 60% train, 15% validation, 25% test."""
    data = ActivationDataModule(
        str(setting.shards),
        batch_size=setting.batch_size,
        seed=seed,
        val_fraction=0.15,
        test_fraction=0.25,
    )
    data.setup("fit")
    return data


@torch.no_grad()
def encode_split(
    sae: SparseAutoencoder, loader: ActivationLoader, setting: Setting
) -> Iterator[tuple[SparseCode, Tensor, Tensor]]:
    """Code, activations and image number of every batch."""
    for batch in loader:
        image = batch.sample_index * setting.copies + batch.token_index
        yield sae.encode(batch.activations), batch.activations, image


def one_process_per_core() -> ProcessPoolExecutor:
    """Processes to train in; each imports Lightning once, for seconds."""
    return ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn"))


def train_all(
    pool: Executor,
    fits: Iterable[Fit],
    setting: Setting,
    out: Path,
    done: Callable[[Scores], None],
) -> dict[Fit, Scores]:
    """Train side by side."""
    results: dict[Fit, Scores] = {}
    for future in as_completed([pool.submit(train, fit, setting, out) for fit in fits]):
        scores = future.result()
        results[scores.fit] = scores
        done(scores)
    return results


def grid_fits(seeds: Iterable[int]) -> list[Fit]:
    """Every lambda of the grid beside the baseline, for each seed."""
    return paired_fits([(name, weight) for name in REGULARIZERS for weight in GRID], seeds)


def paired_fits(weights: Sequence[tuple[str, float]], seeds: Iterable[int]) -> list[Fit]:
    """Some variants with their lambdas beside the baseline, for each seed; none if there are none.

    Example:
        >>> paired_fits([("Reg 1", 0.1)], [7])
        [Fit(variant='baseline', weight=0.0, seed=7), Fit(variant='Reg 1', weight=0.1, seed=7)]
    """
    pairs = [(BASELINE, 0.0), *weights] if weights else []
    return [Fit(name, weight, seed) for seed in seeds for name, weight in pairs]


def r2_differences(variant: str, scores: Iterable[Scores]) -> dict[float, list[float]]:
    """Validation R2 less that of the baseline with the same seed, for each lambda, ascending."""
    r2 = {scored.fit: scored.validation.r2 for scored in scores}
    found: dict[float, list[float]] = {}
    for fit in sorted(fit for fit in r2 if fit.variant == variant):
        base = r2[Fit(BASELINE, 0.0, fit.seed)]
        found.setdefault(fit.weight, []).append(r2[fit] - base)
    return found


def undecided(variant: str, scores: Iterable[Scores]) -> list[float]:
    """The lambdas that the choice hangs on and that need more seeds.

    They are above the largest that clearly keeps the baseline's R2, and their own mean difference
    is within two standard errors of zero.

    Example:
        >>> def made(name, weight, seed, r2):
        ...     result = RunResult(name, weight, seed, r2, 0.5, 0.5, 9, 0, 0, 1.0)
        ...     return Scores(Fit(name, weight, seed), result, result)
        >>> base = [made("baseline", 0.0, seed, 0.8) for seed in (0, 1)]
        >>> tried = [made("Reg 1", 0.1, 0, 0.7), made("Reg 1", 0.1, 1, 0.91)]
        >>> undecided("Reg 1", base + tried)
        [0.1]
    """
    unclear, clear = [], []
    for weight, differences in r2_differences(variant, scores).items():
        mean, error = paired_difference(differences, [0.0] * len(differences))
        if not abs(mean) > 2 * error:
            unclear.append(weight)
        elif mean > 0:
            clear.append(weight)
    return [weight for weight in unclear if weight > max(clear, default=0)]


class Choice(NamedTuple):
    """The lambda of a variant and whether it satisfies the rule it was chosen by."""

    variant: str
    weight: float
    keeps_r2: bool


def choose_weight(variant: str, scores: Iterable[Scores]) -> Choice:
    """The largest lambda whose validation R2 is at least the baseline's, else the smallest.

    What counts is the mean of the differences over paired seeds.

    Example:
        >>> def made(name, weight, r2):
        ...     result = RunResult(name, weight, 0, r2, 0.5, 0.5, 9, 0, 0, 1.0)
        ...     return Scores(Fit(name, weight, 0), result, result)
        >>> tried = [made("Reg 2", 0.1, 0.7), made("Reg 2", 0.01, 0.9), made("baseline", 0.0, 0.8)]
        >>> choose_weight("Reg 2", tried)
        Choice(variant='Reg 2', weight=0.01, keeps_r2=True)
    """
    tried = {weight: fmean(found) for weight, found in r2_differences(variant, scores).items()}
    kept = [weight for weight, difference in tried.items() if difference >= 0]
    return Choice(variant, max(kept, default=min(tried)), bool(kept))


def explain_differences(variant: str, scores: Iterable[Scores]) -> str:
    """The differences that the choice was made by, with their standard errors."""
    told = []
    for weight, found in r2_differences(variant, scores).items():
        mean, error = paired_difference(found, [0.0] * len(found))
        spread = "" if math.isnan(error) else f" ± {error:.4f}".replace("0.", ".")
        seeds = f"{len(found)} seed{'s' if len(found) > 1 else ''}"
        told.append(f"{weight:g} {f'{mean:+.4f}'.replace('0.', '.')}{spread} ({seeds})")
    return f"{variant}: validation R² less the baseline's, by λ: {', '.join(told)}"


def explain_choice(choice: Choice) -> str:
    """One sentence on where the lambda comes from and what that leaves open.

    Example:
        >>> explain_choice(Choice("Reg 1", 0.03, True))
        "Reg 1: λ = 0.03 is the largest whose validation R² is at least the baseline's"
    """
    if not choice.keeps_r2:
        return (
            f"{choice.variant}: no λ of the grid kept the validation R² of the baseline; "
            f"the smallest, {choice.weight:g}, is shown"
        )
    edge = "; it is the largest of the grid" if choice.weight == max(GRID) else ""
    return (
        f"{choice.variant}: λ = {choice.weight:g} is the largest whose validation R² is at least "
        f"the baseline's{edge}"
    )
