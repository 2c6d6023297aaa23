"""The data module over a folder of shards."""

from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import EVAL_DATALOADERS
from torch import Tensor

from lightsae.activations.format import MANIFEST_NAME, Manifest
from lightsae.activations.loader import ActivationLoader
from lightsae.activations.reader import ShardSet
from lightsae.activations.splits import Split, count_rows, distinct_samples, split_rule
from lightsae.activations.storage import Array
from lightsae.errors import LightsaeError

_SPLITS: tuple[Split, ...] = ("train", "validation", "test", "all")


@runtime_checkable
class ActivationSource(Protocol):
    """Something that makes a folder of shards."""

    def write(self, path: Path) -> None:
        """Make the folder, or finish one that was interrupted.

        Args:
            path: The folder.
        """
        ...


class ActivationDataModule(LightningDataModule):
    """Activations of a frozen model, split by sample into train, validation and test.

    Training batches are shuffled; the others come in stored order. `predict` reads every row of
    the folder. All tokens of a sample are in one split.

    Args:
        path: Folder of shards, as `lightsae extract` makes it.
        batch_size: Rows per batch and process.
        val_fraction: Share of the samples held out for validation; 0 fits without validation.
        test_fraction: Share of the samples held out for test; 0 holds out none.
        split_seed: Seed of the division into splits.
        seed: Seed of the order of training rows.
        buffer_rows: Rows held in memory to shuffle among.
        dtype: Dtype of the activations delivered; "stored" leaves them as they lie on disk, so
            that fewer bytes travel to the device.
        drop_last: Leave out a partial last training batch.
        verify: Check the hash of every chunk, and that it is finite, whenever it is read.
        readers: Threads that read and check; batches do not depend on how many.
        source: Makes the shards if the folder is missing or unfinished.

    Example:
        >>> import tempfile
        >>> from lightsae.activations import ShardWriter
        >>> folder = tempfile.mkdtemp()
        >>> with ShardWriter(folder, Manifest(d_in=4, dtype="float16")) as writer:
        ...     writer.write(torch.randn(100, 4), sample_index=torch.arange(100))
        >>> data = ActivationDataModule(folder, batch_size=32)
        >>> data.setup("fit")
        >>> data.d_in, next(iter(data.train_dataloader())).activations.shape
        (4, torch.Size([32, 4]))
    """

    def __init__(
        self,
        path: str,
        batch_size: int = 4096,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        split_seed: int = 0,
        seed: int = 0,
        buffer_rows: int = 131_072,
        dtype: Literal["float32", "stored"] = "float32",
        drop_last: bool = False,
        verify: bool = True,
        readers: int = 2,
        source: ActivationSource | None = None,
    ) -> None:
        super().__init__()
        if dtype not in ("float32", "stored"):
            raise LightsaeError(f"dtype is {dtype!r}, expected 'float32' or 'stored'")
        if seed < 0:
            raise LightsaeError(f"seed is {seed}, expected at least 0")
        self.path = Path(path)
        self.batch_size = batch_size
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.split_seed, self.seed = split_seed, seed
        self.buffer_rows, self.drop_last, self.verify = buffer_rows, drop_last, verify
        self.dtype = torch.float32 if dtype == "float32" else None
        self.readers, self.source = readers, source
        self._shards: ShardSet | None = None
        self._counts: dict[Split, Array] = {}

    @property
    def manifest(self) -> Manifest:
        """The folder's manifest.

        Raises:
            LightsaeError: If the folder is missing, empty or altered.
        """
        return Manifest.load(self.path) if self._shards is None else self._shards.manifest

    @property
    def d_in(self) -> int:
        """Width of a row."""
        return self.manifest.d_in

    @property
    def digest(self) -> str:
        """Hash that tells these shards from others in the same folder; see `Manifest.digest`."""
        return self.manifest.digest()

    def prepare_data(self) -> None:
        """Let the source make the shards, if they are not complete; in one process only."""
        if self.source is None:
            return
        exists = (self.path / MANIFEST_NAME).exists()
        if not (exists and Manifest.load(self.path).complete):
            self.source.write(self.path)

    def setup(self, stage: str | None = None) -> None:
        """Check the structure of every shard and divide the samples.

        Args:
            stage: Lightning's stage; the work is the same for each.

        Raises:
            LightsaeError: If the folder or a shard is not what it should be.
        """
        if self._shards is not None:
            return
        shards = ShardSet(self.path, verify=self.verify)
        self._rule = split_rule(
            distinct_samples(shards),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.split_seed,
        )
        self._counts = count_rows(shards, self._rule, _SPLITS)
        self._shards = shards

    def teardown(self, stage: str | None = None) -> None:
        """Close the files.

        Args:
            stage: Lightning's stage; the work is the same for each.
        """
        if self._shards is not None:
            self._shards.close()
            self._shards = None

    def rows(self, split: Split) -> int:
        """Number of rows of a split."""
        self.setup()
        return int(self._counts[split].sum())

    def training_sample(self, max_rows: int = 32_768) -> Tensor:
        """Rows of the training split, from chunks drawn by `seed`; the same on every rank.

        Args:
            max_rows: At most this many.

        Returns:
            Float32 `[rows, d_in]`.
        """
        self.setup()
        assert self._shards is not None
        counts = self._counts["train"]
        order = np.random.default_rng(self.seed).permutation(len(counts))
        parts: list[Array] = []
        wanted = max_rows
        for chunk in order:
            if wanted <= 0:
                break
            mask = self._rule.mask(self._shards.read_index(chunk)[0], "train")
            parts.append(self._shards.read_activations([chunk])[0][mask][:wanted])
            wanted -= len(parts[-1])
        return torch.from_numpy(np.concatenate(parts))

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
        """Batches of every row of the folder, in stored order."""
        return self._loader("all")

    def _loader(self, split: Split, shuffle: bool = False) -> ActivationLoader:
        """A loader for this process."""
        if {"validation": self.val_fraction, "test": self.test_fraction}.get(split) == 0:
            key = "val_fraction" if split == "validation" else "test_fraction"
            raise LightsaeError(f"{self.path}: there is no {split} split: {key} is 0")
        self.setup()
        assert self._shards is not None
        trainer = self.trainer
        return ActivationLoader(
            self._shards,
            self._rule,
            split,
            self._counts[split],
            batch_size=self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
            buffer_rows=self.buffer_rows,
            dtype=self.dtype,
            drop_last=self.drop_last and shuffle,
            readers=self.readers,
            progress=partial(_progress, trainer) if shuffle and trainer else None,
        )


def _progress(trainer: Trainer) -> tuple[int, float]:
    """Batches of the current epoch that training has finished, and how many it wants."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return int(progress.processed), trainer.fit_loop.max_batches
