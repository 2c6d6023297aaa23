"""The data module over a folder of shards."""

import math
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from lightsae.activations.loading.label_mixing import in_random_order, label_chi_square
from lightsae.activations.loading.paired_rows.sample_embeddings import SampleEmbeddings
from lightsae.activations.loading.paired_rows.target_rows import TargetRows
from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.activations.loading.splits import (
    Split,
    SplitRule,
    count_rows,
    distinct_samples,
    split_rule,
)
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import MANIFEST_NAME, Manifest
from lightsae.activations.shards.reading.row_source import RowSource
from lightsae.activations.shards.reading.shard_set import ShardSet
from lightsae.errors import LightsaeError
from lightsae.files import NameOption, expanded

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


class ActivationDataModule(SplitDataModule):
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
        buffer_rows: Rows held in memory, half of which are shuffled among each other; up to twice
            as many where processes read.
        dtype: Dtype of the activations delivered; "stored" leaves them as they lie on disk, so
            that fewer bytes travel to the device.
        drop_last: Leave out a partial last training batch.
        verify: Check the hash of every chunk, and that it is finite, whenever it is read.
        readers: How many read and check ahead, processes if the set is large, else threads; 0 for
            none. Batches do not depend on how many.
        source: Makes the shards if the folder is missing or unfinished.
        embeddings: Folder of shards of another model with a row for each sample, in any order;
            batches have them for `MonosemanticityLoss(embeddings="data")`. All of them are held in
            memory, as they are stored.
        targets: Folder of shards of another layer, as the same extraction makes it, whose rows are
            those of `path` in the same order; batches have them for a `Transcoder`.

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
        path: NameOption,
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
        embeddings: NameOption | None = None,
        targets: NameOption | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            seed=seed,
            buffer_rows=buffer_rows,
            drop_last=drop_last,
        )
        if dtype not in ("float32", "stored"):
            raise LightsaeError(f"dtype is {dtype!r}, expected 'float32' or 'stored'")
        self.path = Path(expanded(path))
        self.dtype = torch.float32 if dtype == "float32" else None
        self.verify, self.readers, self.source = verify, readers, source
        self.embeddings = None if embeddings is None else Path(expanded(embeddings))
        self.targets = None if targets is None else Path(expanded(targets))
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
    def target_manifest(self) -> Manifest | None:
        """The manifest of the targets, or None where there are none.

        Raises:
            LightsaeError: If their folder is missing, empty or altered.
        """
        if self.targets is None:
            return None
        rows = self.target_rows
        return Manifest.load(self.targets) if rows is None else rows.manifest

    @property
    def d_out(self) -> int | None:
        """Width of a row of the targets, or None where there are none."""
        manifest = self.target_manifest
        return None if manifest is None else manifest.d_in

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
        if shards.manifest.has_labels and not in_random_order(shards.manifest):
            _tell_mixing(shards, self.buffer_rows)
        if self.embeddings is not None and self.sample_embeddings is None:
            self.sample_embeddings = SampleEmbeddings(str(self.embeddings), verify=self.verify)
        if self.targets is not None and self.target_rows is None:
            targets = ShardSet(self.targets, verify=self.verify)
            self.target_rows = TargetRows(shards, targets)
        self._shards = shards

    def teardown(self, stage: str | None = None) -> None:
        """Close the files.

        Args:
            stage: Lightning's stage; the work is the same for each.
        """
        if self._shards is not None:
            self._shards.close()
            if isinstance(self.target_rows, TargetRows):
                self.target_rows.close()
            self._shards = self.sample_embeddings = self.target_rows = None

    @property
    def _name(self) -> str:
        """The folder."""
        return str(self.path)

    def _opened(self, split: Split) -> tuple[RowSource, SplitRule, Array]:
        """The shards, how they are divided, and each chunk's rows of a split."""
        self.setup()
        assert self._shards is not None
        return self._shards, self._rule, self._counts[split]


@rank_zero_only
def _tell_mixing(shards: ShardSet, buffer_rows: int) -> None:
    """Tell how well training mixes a set that may lie in the order of its classes."""
    figure = label_chi_square(shards, buffer_rows=buffer_rows)
    if math.isnan(figure):
        return
    advice = "; lightsae shards shuffle mixes them" if figure > 1.5 else ""
    rank_zero_info(
        f"{shards.folder}: labels of shuffled batches of 256 have a chi-square of {figure:.3g} "
        f"per degree of freedom, 1 is random{advice}"
    )
