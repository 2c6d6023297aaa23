"""The rows that several runs were trained on or held out, each run's the same."""

from collections.abc import Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor

from lightsae.activations import ActivationDataModule
from lightsae.activations.loading.splits import Split
from lightsae.activations.shards.manifest import Manifest
from lightsae.errors import LightsaeError
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun
from lightsae.files import expanded

# Of settings of a run's data module, those that decide which rows are in a split.
_SPLITTING = ("val_fraction", "test_fraction", "split_seed")
_DEFAULTS = signature(ActivationDataModule).parameters
_BATCH = 2048


class SharedRows:
    """Rows of one split of the shards that some runs have in common.

    Args:
        runs: At least one.
        split: Which rows.
        most: At most so many, drawn from all of the split: stored order may be that of classes.
            None for all, in stored order.

    Attributes:
        path: Folder of the shards, of the first run.

    Raises:
        LightsaeError: If a run has other shards or another division than the first, its data are no
            folder of shards, or the split is empty.
    """

    def __init__(self, runs: Sequence[EvaluatedRun], split: Split, most: int | None = None) -> None:
        first, *others = [_Shards(run) for run in runs]
        for other in others:
            first.require_same(other)
        self.path = first.path
        self._data = ActivationDataModule(
            str(first.path), batch_size=_BATCH, readers=0, **first.splitting
        )
        self._data.setup()
        self._split, self._most = split, most
        if not self._data.rows(split):
            raise LightsaeError(f"{self.path}: {runs[0].folder} has no rows in its split {split}")

    def __len__(self) -> int:
        rows = self._data.rows(self._split)
        return rows if self._most is None else min(rows, self._most)

    def __iter__(self) -> Iterator[Tensor]:
        """Raw activations [B, d_in], float32."""
        left = len(self)
        drawn = left < self._data.rows(self._split)
        for batch in self._data.split_dataloader(self._split, shuffle=drawn):
            yield batch.activations[:left]
            left -= len(batch.activations)
            if left <= 0:
                return

    def close(self) -> None:
        """Let go of the files."""
        self._data.teardown()


class _Shards:
    """What a run says of its rows."""

    def __init__(self, run: EvaluatedRun) -> None:
        data: Any = run.config.get("data")
        given = run.data_settings()
        name = str(data.get("class_path") if isinstance(data, dict) else None)
        if name.rpartition(".")[2] != "ActivationDataModule" or not given.get("path"):
            raise LightsaeError(
                f"{run.folder}/config.yaml names no folder of shards: expected data of "
                f"ActivationDataModule, found {name}"
            )
        self.folder, self.path = run.folder, Path(expanded(str(given["path"])))
        self.splitting = {key: given.get(key, _DEFAULTS[key].default) for key in _SPLITTING}

    def require_same(self, other: "_Shards") -> None:
        """Refuse a run with other rows."""
        if other.splitting != self.splitting:
            raise LightsaeError(
                f"{other.folder} divides its rows by {other.splitting}, {self.folder} by "
                f"{self.splitting}"
            )
        if other.path.resolve() == self.path.resolve():
            return
        if Manifest.load(other.path).digest() != Manifest.load(self.path).digest():
            raise LightsaeError(
                f"{other.folder} was trained on {other.path}, {self.folder} on {self.path}: "
                "expected the same shards"
            )
