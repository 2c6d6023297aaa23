"""The data module base: loaders over the train, validation and test rows of any row source."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import EVAL_DATALOADERS
from torch import Tensor

from lightsae.activations.loading.gpu_prefetch import CudaCopies
from lightsae.activations.loading.loader import ActivationLoader
from lightsae.activations.loading.paired_rows.sample_embeddings import SampleEmbeddings
from lightsae.activations.loading.splits import Split, SplitRule
from lightsae.activations.shards.dtypes import Array, as_float32
from lightsae.activations.shards.manifest import Manifest
from lightsae.activations.shards.reading.row_source import Piece, RowSource
from lightsae.errors import LightsaeError


class SplitDataModule(LightningDataModule):
    """What `ActivationDataModule` and `OnlineActivationDataModule` have in common.

    Args:
        batch_size: Rows per batch and process.
        val_fraction: Share of the samples held out for validation.
        test_fraction: Share of the samples held out for test.
        split_seed: Seed of the division into splits.
        seed: Seed of the order of training rows.
        buffer_rows: Rows held in memory to shuffle among.
        drop_last: Leave out a partial last training batch.

    Attributes:
        dtype: Dtype of the activations delivered; None for the stored one.
        readers: Threads that read.
        sample_embeddings: What batches have of another model, or None.
        target_rows: What batches have of another layer, or None; there once the data are set up.

    Raises:
        LightsaeError: If the seed is negative.
    """

    dtype: torch.dtype | None = torch.float32
    readers: int = 1
    sample_embeddings: SampleEmbeddings | None = None
    target_rows: RowSource | None = None

    def __init__(
        self,
        batch_size: int,
        val_fraction: float,
        test_fraction: float,
        split_seed: int,
        seed: int,
        buffer_rows: int,
        drop_last: bool,
    ) -> None:
        super().__init__()
        if seed < 0:
            raise LightsaeError(f"seed is {seed}, expected at least 0")
        self.batch_size = batch_size
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.split_seed, self.seed = split_seed, seed
        self.buffer_rows, self.drop_last = buffer_rows, drop_last

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has of this data module; it belongs to no trainer."""
        return {**self.__dict__, "trainer": None}

    @property
    def manifest(self) -> Manifest:
        """What the rows are."""
        raise NotImplementedError

    @property
    def _name(self) -> str:
        """What messages call the data."""
        raise NotImplementedError

    def _opened(self, split: Split) -> tuple[RowSource, SplitRule, Array]:
        """The rows of a split, the division, and each chunk's rows of the split."""
        raise NotImplementedError

    def rows(self, split: Split) -> int:
        """Number of rows of a split."""
        return int(self._opened(split)[2].sum())

    def index_blocks(self, split: Split) -> Iterator[Array]:
        """Where the rows of a split come from, in stored order; no activation is read.

        Args:
            split: The split.

        Yields:
            Int64 `[2 or 3, n]`: sample, token and, where it is known ahead, label of each row.

        Raises:
            LightsaeError: If there is no such split.
        """
        self._require_split(split)
        source, rule, counts = self._opened(split)
        for chunk in np.flatnonzero(counts).tolist():
            columns = source.read_index(chunk)
            known = columns if source.index_ahead else columns[:2]
            yield known[:, rule.mask(columns[0], split)]

    def training_sample(self, max_rows: int = 32_768) -> Tensor:
        """Rows of the training split, from chunks drawn by `seed`; the same on every rank.

        Args:
            max_rows: At most this many.

        Returns:
            Float32 `[rows, d_in]`.
        """
        source, rule, counts = self._opened("train")
        return self._sample(source, rule, counts, max_rows)

    def training_targets(self, max_rows: int = 32_768) -> Tensor:
        """Targets of the rows of `training_sample`, in its order; the same on every rank.

        Args:
            max_rows: At most this many.

        Returns:
            Float32 `[rows, d_out]`.

        Raises:
            LightsaeError: If there are none.
        """
        _, rule, counts = self._opened("train")
        if self.target_rows is None:
            raise LightsaeError(f"{self._name}: has no targets: give data.targets")
        return self._sample(self.target_rows, rule, counts, max_rows)

    def _sample(self, source: RowSource, rule: SplitRule, counts: Array, max_rows: int) -> Tensor:
        """Rows of the training split, from chunks drawn by `seed`."""
        order = np.random.default_rng(self.seed).permutation(len(counts))
        chunks = order[: np.searchsorted(np.cumsum(counts[order]), max_rows) + 1]
        manifest, rows = source.manifest, source.stored_rows
        buffer = np.empty(int(rows[chunks].max()) * source.row_bytes, np.uint8)
        parts: list[Array] = []
        with source.reading(chunks) as place:
            for chunk in chunks.tolist():
                place([Piece(chunk, 0)], buffer)
                raw = buffer[: rows[chunk] * source.row_bytes]
                mask = rule.mask(source.read_index(chunk)[0], "train")
                parts.append(as_float32(raw, manifest.dtype, manifest.d_in)[mask])
        return torch.from_numpy(np.concatenate(parts)[:max_rows])

    def train_dataloader(self) -> ActivationLoader:
        """Shuffled batches of the training split, from the trainer's current epoch on."""
        loader = self._loader("train", shuffle=True)
        if self.trainer is not None:
            # Lightning restores a loader's position only in the middle of an epoch.
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            loader.set_epoch(progress.processed)
        return loader

    def val_dataloader(self) -> EVAL_DATALOADERS:
        """Batches of the validation split; in a fit without one, no loader.

        Raises:
            LightsaeError: If there is no validation split, and not in a fit.
        """
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if self.val_fraction == 0 and fitting:
            return []
        return self._loader("validation")

    def test_dataloader(self) -> ActivationLoader:
        """Batches of the test split.

        Raises:
            LightsaeError: If there is none.
        """
        return self._loader("test")

    def predict_dataloader(self) -> ActivationLoader:
        """Batches of every row, in stored order; without targets, which no code needs."""
        return self._loader("all", targets=False)

    def split_dataloader(
        self,
        split: Split,
        *,
        rank: int = 0,
        world_size: int = 1,
        targets: bool = False,
        shuffle: bool = False,
    ) -> ActivationLoader:
        """Batches of a split outside a trainer, in stored order unless they are shuffled.

        Args:
            split: The split.
            rank: Whose share.
            world_size: In how many shares its rows are cut.
            targets: Read the targets too, where there are some.
            shuffle: Shuffle by `seed`; the first rows are then a sample of the split.

        Raises:
            LightsaeError: If there is no such split.
        """
        return self._loader(split, shuffle, place=(rank, world_size), targets=targets)

    def _loader(
        self,
        split: Split,
        shuffle: bool = False,
        place: tuple[int, int] | None = None,
        targets: bool = True,
    ) -> ActivationLoader:
        """A loader for this process, or for a rank of so many."""
        self._require_split(split)
        source, rule, counts = self._opened(split)
        trainer = self.trainer
        if place is None:
            place = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        return ActivationLoader(
            source,
            rule,
            split,
            counts,
            batch_size=self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            # Overfitting is to see the same few batches again and again.
            reshuffle=trainer is None or not trainer.overfit_batches,  # type: ignore[attr-defined]
            rank=place[0],
            world_size=place[1],
            buffer_rows=self.buffer_rows,
            dtype=self.dtype,
            drop_last=self.drop_last and shuffle,
            readers=self.readers,
            progress=partial(_progress, trainer) if shuffle and trainer else None,
            copies=self._copies(),
            embeddings=None if split == "all" else self.sample_embeddings,
            targets=self.target_rows if targets else None,
        )

    def _require_split(self, split: Split) -> None:
        """Refuse a split that nothing is held out for."""
        if {"validation": self.val_fraction, "test": self.test_fraction}.get(split) == 0:
            key = "val_fraction" if split == "validation" else "test_fraction"
            raise LightsaeError(f"{self._name}: there is no {split} split: {key} is 0")

    def _copies(self) -> CudaCopies | None:
        """What brings batches to the trainer's GPU, if it has one."""
        device = None if self.trainer is None else self.trainer.strategy.root_device
        if device is None or device.type != "cuda":
            return None
        return CudaCopies(device, self.dtype)


def _progress(trainer: Trainer) -> tuple[int, float]:
    """Batches of the current epoch that training has finished, and how many it wants."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return int(progress.processed), trainer.fit_loop.max_batches
