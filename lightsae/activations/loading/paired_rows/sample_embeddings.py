"""Embeddings of samples by another model, looked up by sample index."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightsae.activations.shards.dtypes import Array, as_float32
from lightsae.activations.shards.manifest import Manifest
from lightsae.activations.shards.reading.shard_set import ShardSet
from lightsae.errors import LightsaeError
from lightsae.files import NameOption, expanded


class SampleEmbeddings:
    """A folder of shards with one row per sample, held in memory as it is stored.

    Args:
        folder: The shards, in any order.
        verify: Check the hash of every chunk, and that it is finite.

    Attributes:
        manifest: The folder's manifest.

    Raises:
        LightsaeError: If the folder is not what it should be, or a sample has several rows.

    Example:
        >>> import tempfile
        >>> from lightsae.activations import ShardWriter
        >>> folder = tempfile.mkdtemp()
        >>> with ShardWriter(folder, Manifest(d_in=2, dtype="float16")) as writer:
        ...     writer.write(torch.eye(2), sample_index=torch.tensor([7, 3]))
        >>> SampleEmbeddings(folder).of(torch.tensor([3, 3, 7]))
        tensor([[0., 1.],
                [0., 1.],
                [1., 0.]])
    """

    def __init__(self, folder: NameOption, *, verify: bool = True) -> None:
        self._folder = Path(expanded(folder))
        shards = ShardSet(self._folder, verify=verify)
        self.manifest: Manifest = shards.manifest
        samples, rows = _all_rows(shards)
        shards.close()
        order = np.argsort(samples, kind="stable")
        self._samples, self._rows = samples[order], rows[order]
        repeated = self._samples[1:][self._samples[1:] == self._samples[:-1]]
        if len(repeated):
            raise LightsaeError(
                f"{self._folder}: sample {repeated[0]} has several rows, expected one per sample "
                "to compare by: extract a class or a pooled token"
            )

    def of(self, sample_index: Tensor) -> Tensor:
        """The embedding of each sample.

        Args:
            sample_index: Int64 `[B]`.

        Returns:
            Float32 `[B, d_e]`.

        Raises:
            LightsaeError: Naming the first sample that has none.
        """
        wanted = sample_index.numpy()
        places = np.searchsorted(self._samples, wanted).clip(max=len(self._samples) - 1)
        missing = wanted[self._samples[places] != wanted]
        if len(missing):
            raise LightsaeError(
                f"{self._folder}: has no row of sample {missing[0]}, expected one of every sample"
            )
        raw = self._rows[places].reshape(-1)
        return torch.from_numpy(as_float32(raw, self.manifest.dtype, self.manifest.d_in))


def _all_rows(shards: ShardSet) -> tuple[Array, Array]:
    """Sample indices [n] and stored bytes [n, row bytes] of every row."""
    total, width = int(shards.stored_rows.sum()), shards.row_bytes
    samples, rows = np.empty(total, np.int64), np.empty((total, width), np.uint8)
    flat, end = rows.reshape(-1), 0
    buffer = np.empty(int(shards.stored_rows.max()) * width, np.uint8)
    for chunk, count in enumerate(shards.stored_rows.tolist()):
        shards.read_rows(chunk, buffer)
        flat[end * width : (end + count) * width] = buffer[: count * width]
        samples[end : end + count] = shards.read_index(chunk)[0]
        end += count
    return samples, rows
