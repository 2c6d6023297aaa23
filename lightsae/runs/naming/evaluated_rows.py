"""The labelled rows that a run was evaluated on, and how often latents fire on each label."""

from collections import Counter
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from lightsae.activations import ActivationBatch, ActivationDataModule
from lightsae.activations.loading.splits import Split
from lightsae.dictionaries import LabelCounts
from lightsae.errors import LightsaeError
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun
from lightsae.runs.naming.attribute_table import AttributeTable
from lightsae.sae import SparseAutoencoder, SparseCode

_BATCH_ROWS = 2048
# Of settings of a run's data module, those that decide which rows are in a split.
_SPLITTING = ("val_fraction", "test_fraction", "split_seed")
# Cells of a table of latents and labels: 4 GiB.
_MOST_CELLS = 1 << 29


def evaluated_split(run: EvaluatedRun) -> Split:
    """The split that a run was evaluated on."""
    return cast(Split, run.result.about.get("split") or "test")


def open_rows(run: EvaluatedRun) -> ActivationDataModule:
    """The shards that were evaluated, divided as in the run.

    Args:
        run: The run.

    Raises:
        LightsaeError: If they are gone or others, or the split has other rows.
    """
    shards, settings = run.result.about.get("shards") or {}, run.data_settings()
    path = shards.get("path") or settings.get("path")
    if path is None:
        raise LightsaeError(f"{run.folder}: the evaluation names no shards")
    given = {name: settings[name] for name in _SPLITTING if name in settings}
    data = ActivationDataModule(str(path), batch_size=_BATCH_ROWS, readers=0, **given)
    data.setup()
    try:
        if shards.get("digest") not in (None, data.digest):
            raise LightsaeError(f"{path}: other shards than those evaluated")
        split = evaluated_split(run)
        rows = sum(block.shape[1] for block in data.index_blocks(split))
        if run.result.about.get("rows") not in (None, rows):
            raise LightsaeError(
                f"{path}: the {split} split has {rows} rows, {run.result.about['rows']} were "
                f"evaluated: {run.folder / 'config.yaml'} divides them otherwise"
            )
    except BaseException:
        data.teardown()
        raise
    return data


def count_classes(
    sae: SparseAutoencoder, data: ActivationDataModule, split: Split, enough: int
) -> tuple[LabelCounts, list[str]]:
    """How often latents fire on each class, and what the classes are called.

    Classes are those that the shards name, and others that rows of the split have; rows with a
    label below 0 have none. Of classes of one name each carries its number too.

    Args:
        sae: In eval mode.
        data: Rows.
        split: Which of them.
        enough: As for `LabelCounts`.

    Raises:
        LightsaeError: If no row has a label, or there are too many.
    """
    if not data.manifest.has_labels:
        raise LightsaeError(
            f"{data.path}: its rows have no labels; --vocabulary or --attributes FILE need none"
        )
    named = data.manifest.classes
    found = torch.arange(len(named))
    seen = False
    for block in data.index_blocks(split):
        there = torch.from_numpy(block[2]).unique()
        seen |= bool((there >= 0).any())
        found = torch.cat([found, there[there >= 0]]).unique()
    if not seen:
        raise LightsaeError(f"{data.path}: no row of the {split} split has a label")

    def labels(batch: ActivationBatch) -> tuple[Tensor, Tensor]:
        assert batch.label is not None
        place = torch.searchsorted(found, batch.label.clamp(min=0))
        return torch.ones_like(place, dtype=torch.bool), place.where(batch.label >= 0, -1)

    counts = _counts(sae, data, len(found), enough)
    _count(counts, sae, data, split, labels)
    return counts, _class_names(found.tolist(), named)


def count_attributes(
    sae: SparseAutoencoder,
    data: ActivationDataModule,
    split: Split,
    table: AttributeTable,
    enough: int,
) -> LabelCounts:
    """How often latents fire on rows with each attribute; rows of other samples are left out.

    Args:
        sae: In eval mode.
        data: Rows.
        split: Which of them.
        table: Attributes of samples.
        enough: As for `LabelCounts`.

    Raises:
        LightsaeError: If no row is of a sample of the table.
    """
    counts = _counts(sae, data, len(table.names), enough)
    _count(counts, sae, data, split, lambda batch: table.of(batch.sample_index))
    if not counts.rows:
        raise LightsaeError(f"no row of the {split} split is of a sample of the table")
    return counts


def _counts(
    sae: SparseAutoencoder, data: ActivationDataModule, labels: int, enough: int
) -> LabelCounts:
    for what, number in (("labels", labels), ("firings (min_firings)", enough)):
        if sae.d_sae * number > _MOST_CELLS:
            raise LightsaeError(
                f"{data.path}: {number} {what} of {sae.d_sae} latents are too many to be counted"
            )
    return LabelCounts(sae.d_sae, labels, enough)


@torch.no_grad()
def _count(
    counts: LabelCounts, sae: SparseAutoencoder, data: ActivationDataModule, split: Split,
    labels: Callable[[ActivationBatch], tuple[Tensor, Tensor]],
) -> None:  # fmt: skip
    """One pass over the rows."""
    for batch in data.split_dataloader(split):
        kept, of = labels(batch)
        code = sae.encode(batch.activations.to(sae.W_enc.dtype))
        some = SparseCode(code.values[kept], code.indices[kept], code.d_sae)
        counts.update(some, of, batch.sample_index[kept])


def _class_names(numbers: list[int], named: list[str]) -> list[str]:
    """Different names of classes."""
    names = [named[number] if number < len(named) else str(number) for number in numbers]
    often = Counter(names)
    return [
        f"{name} ({number})" if often[name] > 1 else name
        for number, name in zip(numbers, names, strict=True)
    ]
