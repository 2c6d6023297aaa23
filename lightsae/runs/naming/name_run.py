"""Names of the latents of a run folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lightsae.activations import ActivationDataModule
from lightsae.activations.extraction.models import weights_hash
from lightsae.activations.loading.splits import Split
from lightsae.dictionaries import (
    LabelCounts,
    LatentNames,
    Vocabulary,
    name_by_labels,
    name_latents,
)
from lightsae.errors import LightsaeError
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun, read_evaluated
from lightsae.evaluation.result import JSON, EvaluationResult
from lightsae.sae import SparseAutoencoder

_BATCH_ROWS = 2048
# Of settings of a run's data module, those that decide which rows are in a split.
_SPLITTING = ("val_fraction", "test_fraction", "split_seed")


def names_by_vocabulary(
    folder: Path, vocabulary: Path, cutoff: float = 0.8, *, candidates: int = 5
) -> LatentNames:
    """Names of a run's latents by the directions of words.

    Args:
        folder: A run folder with sae/. Where it was evaluated, latents that never fired there have
            no name and do not count.
        vocabulary: A file of `Vocabulary.save`.
        cutoff: Least cosine of a name.
        candidates: Words of each latent to keep.

    Raises:
        LightsaeError: If a file is missing or not what it should be, or the widths differ.
    """
    sae = SparseAutoencoder.load(folder / "sae")
    words = Vocabulary.load(vocabulary)
    if words.vectors.shape[1] != sae.W_dec.shape[1]:
        raise LightsaeError(
            f"{vocabulary} has directions of width {words.vectors.shape[1]}, the decoder rows of "
            f"{folder / 'sae'} have {sae.W_dec.shape[1]}: they are of different spaces"
        )
    found = name_latents(
        sae.W_dec.detach().float(), words, cutoff, alive=_alive(folder, sae), candidates=candidates
    )
    return _stamped(found, sae, vocabulary=str(vocabulary))


def names_by_classes(
    folder: Path, floor: float = 0.5, *, min_firings: int = 10, candidates: int = 5
) -> LatentNames:
    """Names of a run's latents by the classes of the rows that it was evaluated on.

    Args:
        folder: A run that `lightsae test` evaluated, on shards with labels.
        floor: Least purity beyond chance of a name.
        min_firings: Of fewer firings nothing is concluded.
        candidates: Classes of each latent to keep.

    Raises:
        LightsaeError: If the run was not evaluated, its shards are gone or others, or have no
            labels.
    """
    run = read_evaluated(folder)
    sae = SparseAutoencoder.load(folder / "sae").eval()
    _require_same_size(folder, sae, run.result)
    split = cast(Split, run.result.about.get("split") or "test")
    data = _rows(run)
    try:
        classes = data.manifest.classes
        counts = _counted(sae, data, split, len(classes))
    finally:
        data.teardown()
    named = [*classes, *(str(label) for label in range(len(classes), counts.n_labels))]
    found = name_by_labels(counts, named, floor, min_firings=min_firings, candidates=candidates)
    return _stamped(found, sae, split=split, labels=str(data.path))


@torch.no_grad()
def _counted(
    sae: SparseAutoencoder, data: ActivationDataModule, split: Split, classes: int
) -> LabelCounts:
    """How often latents fire on each class."""
    codes, labels = [], []
    for batch in data.split_dataloader(split):
        assert batch.label is not None
        codes.append(sae.encode(batch.activations.to(sae.W_enc.dtype)))
        labels.append(batch.label)
    most = max((int(each.max()) for each in labels if len(each)), default=-1)
    if most < 0:
        raise LightsaeError(f"{data.path}: no row of the {split} split has a label")
    counts = LabelCounts(sae.d_sae, max(classes, most + 1))
    for code, label in zip(codes, labels, strict=True):
        counts.update(code, label)
    return counts


def _rows(run: EvaluatedRun) -> ActivationDataModule:
    """The shards that were evaluated, divided as in the run."""
    shards, settings = run.result.about.get("shards") or {}, run.data_settings()
    path = shards.get("path") or settings.get("path")
    if path is None:
        raise LightsaeError(f"{run.folder}: the evaluation names no shards")
    given = {name: settings[name] for name in _SPLITTING if name in settings}
    data = ActivationDataModule(str(path), batch_size=_BATCH_ROWS, readers=0, **given)
    data.setup()
    if shards.get("digest") not in (None, data.digest):
        data.teardown()
        raise LightsaeError(f"{path}: other shards than those evaluated")
    if not data.manifest.has_labels:
        data.teardown()
        raise LightsaeError(f"{path}: its rows have no labels; --vocabulary FILE needs none")
    return data


def _alive(folder: Path, sae: SparseAutoencoder) -> Tensor | None:
    """Latents that fired when the run was evaluated; None where it was not."""
    if not (folder / JSON).is_file():
        return None
    result = EvaluationResult.load(folder)
    _require_same_size(folder, sae, result)
    firings = result.latents.get("firings")
    return None if firings is None else firings > 0


def _require_same_size(folder: Path, sae: SparseAutoencoder, result: EvaluationResult) -> None:
    if result.d_sae != sae.d_sae:
        raise LightsaeError(
            f"{folder / 'sae'}: has d_sae = {sae.d_sae}, the evaluation beside it {result.d_sae}: "
            "run `lightsae test` again"
        )


def _stamped(found: LatentNames, sae: SparseAutoencoder, **about: Any) -> LatentNames:
    """Names that say which autoencoder they are of."""
    return replace(found, about={**found.about, **about, "autoencoder": weights_hash(sae)})
