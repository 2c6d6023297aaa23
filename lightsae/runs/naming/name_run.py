"""Names of the latents of a run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lightsae.activations import ActivationDataModule
from lightsae.activations.extraction.models import weights_hash
from lightsae.dictionaries import LatentNames, Vocabulary, name_by_labels, name_latents
from lightsae.dictionaries.naming.labels import require_floor
from lightsae.dictionaries.naming.names import require_cutoff
from lightsae.errors import LightsaeError
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun, read_evaluated
from lightsae.evaluation.result import JSON, EvaluationResult
from lightsae.runs.naming.attribute_table import read_attributes
from lightsae.runs.naming.evaluated_rows import (
    count_attributes,
    count_classes,
    evaluated_split,
    open_rows,
)
from lightsae.sae import SparseAutoencoder


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
    require_cutoff(cutoff)
    sae = SparseAutoencoder.load(folder / "sae")
    words = Vocabulary.load(vocabulary)
    if words.vectors.shape[1] != sae.W_dec.shape[1]:
        raise LightsaeError(
            f"{vocabulary} has directions of width {words.vectors.shape[1]}, the decoder rows of "
            f"{folder / 'sae'} have {sae.W_dec.shape[1]}: they are of different spaces"
        )
    W_dec = sae.W_dec.detach().float()
    alive = _alive(folder, sae, (W_dec != 0).any(dim=1))
    found = name_latents(W_dec, words, cutoff, alive=alive, candidates=candidates)
    return _stamped(found, sae, vocabulary=str(vocabulary))


def names_by_classes(
    folder: Path, floor: float = 0.5, *, min_firings: int = 10, candidates: int = 5
) -> LatentNames:
    """Names of a run's latents by the classes of the rows that it was evaluated on.

    Args:
        folder: A run that `lightsae test` evaluated, on shards with labels.
        floor: Least purity beyond chance of a name.
        min_firings: Of firings in fewer samples nothing is concluded.
        candidates: Classes of each latent to keep.

    Raises:
        LightsaeError: If the run was not evaluated, its shards are gone or others, or have no
            labels.
    """
    require_floor(floor)
    with _evaluated(folder) as (run, sae, data):
        split = evaluated_split(run)
        counts, words = count_classes(sae, data, split, min_firings)
    found = name_by_labels(counts, words, floor, min_firings=min_firings, candidates=candidates)
    found = replace(found, alive=_alive(folder, sae, found.alive))
    return _stamped(found, sae, split=split, labels=str(data.path))


def names_by_attributes(
    folder: Path, table: Path, floor: float = 0.5, *, min_firings: int = 10, candidates: int = 5
) -> LatentNames:
    """Names of a run's latents by attributes of the samples that it was evaluated on.

    Args:
        folder: A run that `lightsae test` evaluated.
        table: CSV file, see `read_attributes`; rows of samples that it lacks are left out.
        floor: As for `names_by_classes`, like the others.
        min_firings: Of firings in fewer samples nothing is concluded.
        candidates: Attributes of each latent to keep.

    Raises:
        LightsaeError: If the run was not evaluated, its shards are gone or others, or the table is
            not as it should be, or has none of the samples.
    """
    require_floor(floor)
    attributes = read_attributes(table)
    with _evaluated(folder) as (run, sae, data):
        split = evaluated_split(run)
        try:
            counts = count_attributes(sae, data, split, attributes, min_firings)
        except LightsaeError as error:
            raise LightsaeError(f"{table}: {error}") from error
    found = name_by_labels(
        counts, attributes.names, floor, min_firings=min_firings, candidates=candidates
    )
    found = replace(found, alive=_alive(folder, sae, found.alive))
    return _stamped(found, sae, split=split, labels=str(table))


@contextmanager
def _evaluated(
    folder: Path,
) -> Iterator[tuple[EvaluatedRun, SparseAutoencoder, ActivationDataModule]]:
    """A run, its autoencoder, and the rows that it was evaluated on, which are closed behind."""
    run = read_evaluated(folder)
    sae = SparseAutoencoder.load(folder / "sae").eval()
    _require_same_size(folder, sae, run.result)
    data = open_rows(run)
    try:
        yield run, sae, data
    finally:
        data.teardown()


def _alive(folder: Path, sae: SparseAutoencoder, default: Tensor) -> Tensor:
    """Latents that fired when the run was evaluated; where it was not, the default."""
    if not (folder / JSON).is_file():
        return default
    result = EvaluationResult.load(folder)
    _require_same_size(folder, sae, result)
    firings = result.latents.get("firings")
    return default if firings is None else firings > 0


def _require_same_size(folder: Path, sae: SparseAutoencoder, result: EvaluationResult) -> None:
    if result.d_sae != sae.d_sae:
        raise LightsaeError(
            f"{folder / 'sae'}: has d_sae = {sae.d_sae}, the evaluation beside it {result.d_sae}: "
            "run `lightsae test` again"
        )


def _stamped(found: LatentNames, sae: SparseAutoencoder, **about: Any) -> LatentNames:
    """Names that say which autoencoder they are of."""
    return replace(found, about={**found.about, **about, "autoencoder": weights_hash(sae)})
