"""Stability of the latents of several runs that differ in nothing but the seed."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lightsae.dictionaries import Cut, StabilityResult, measure_stability
from lightsae.dictionaries.pooling.requirements import require_one_space
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun
from lightsae.runs.side_by_side.independence import require_independent
from lightsae.runs.side_by_side.shared_rows import SharedRows
from lightsae.runs.side_by_side.trained_runs import read_autoencoder

Rows = Literal["train", "validation", "test", "all"]
_PURITY = "purity_weighted"
_STABLE_FROM = 0.7


def stability_of_runs(
    runs: Sequence[EvaluatedRun],
    split: Rows = "test",
    rows: int | None = None,
    thresholds: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9),
) -> StabilityResult:
    """Measure the stability of some runs, in one pass over a split of their shards.

    A latent is stable if it is at the threshold nearest to .7 in at least half of the other seeds.
    Where all runs were evaluated, monosemanticity in each embedding and class purity of their
    latents stand beside.

    Args:
        runs: Two at least, of one setting.
        split: Which rows.
        rows: At most so many.
        thresholds: tau.

    Raises:
        LightsaeError: If runs have other shards, another division, d_in, normalization or scale, or
            started as one autoencoder; or as `measure_stability`.
    """
    require_independent(runs)
    saes = [read_autoencoder(run.folder) for run in runs]
    require_one_space(saes, [str(run.folder) for run in runs])
    nearest = min(thresholds, key=lambda tau: abs(tau - _STABLE_FROM), default=_STABLE_FROM)
    data = SharedRows(runs, split, rows)
    try:
        return measure_stability(
            saes, data, names=[_name(run) for run in runs], thresholds=thresholds,
            cut=Cut(threshold=nearest),
            columns=latent_columns(runs, [s.d_sae for s in saes], split),
        )  # fmt: skip
    finally:
        data.close()


def latent_columns(
    runs: Sequence[EvaluatedRun], sizes: Sequence[int], split: Rows = "test"
) -> dict[str, list[Tensor]]:
    """Monosemanticity and class purity of the latents, as far as all runs were measured on a split.

    Args:
        runs: The runs.
        sizes: d_sae of their autoencoders; of another size it is an evaluation of something else.
        split: Rows that the stability is of; figures of another split say so.

    Example:
        >>> import torch
        >>> from pathlib import Path
        >>> from lightsae.evaluation import EvaluationResult
        >>> result = EvaluationResult({"d_sae": 2}, latents={"ms/cnn": torch.tensor([0.5, 0.7])})
        >>> latent_columns([EvaluatedRun(folder=Path("a"), result=result)] * 2, [2, 2]).keys()
        dict_keys(['ms, cnn'])
    """
    found = {}
    splits = {run.result.about.get("split") for run in runs}
    if len(splits) > 1:
        return {}
    (measured,) = splits
    where = f", {measured}" if measured not in (None, split) else ""
    for name in runs[0].result.latents:
        each = [run.result.latents.get(name) for run in runs]
        kept = [values for values, size in zip(each, sizes, strict=True)
                if values is not None and values.shape == (size,)]  # fmt: skip
        wanted = name.startswith("ms/") or name == _PURITY
        if wanted and len(kept) == len(runs):
            told = "purity" if name == _PURITY else name.replace("/", ", ")
            found[f"{told}{where}"] = kept
    return found


def _name(run: EvaluatedRun) -> str:
    return str(run.folder) if run.seed is None else f"seed {run.seed}"
