"""The codes of a data set as a compressed sparse row matrix in HDF5."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lightsae.activations.loading.activation_batch import as_activation_batch
from lightsae.activations.shards.folder_lock import system_message
from lightsae.activations.shards.reading.hdf5_files import ObstacleError, open_hdf5
from lightsae.errors import LightsaeError
from lightsae.files import replacing
from lightsae.sae import SparseCode

_COLUMNS: dict[str, Any] = {
    "values": np.float32,
    "indices": np.int32,
    "sample_index": np.int64,
    "token_index": np.int64,
    "label": np.int64,
    "indptr": np.int64,
}
_CHUNK = 65_536


class _Column:
    """A dataset written chunk by chunk past HDF5's cache, so that a full disk shows at once."""

    def __init__(self, file: h5py.File, name: str) -> None:
        self._dataset = file.create_dataset(
            name, (0,), dtype=_COLUMNS[name], maxshape=(None,), chunks=(_CHUNK,)
        )
        self._rows = np.zeros(_CHUNK, _COLUMNS[name])
        self._written = self._filled = 0

    def append(self, rows: Tensor) -> None:
        """Add rows [n]."""
        for part in rows.cpu().split(_CHUNK):
            fits = part[: _CHUNK - self._filled]
            self._rows[self._filled : self._filled + len(fits)] = fits.numpy()
            self._filled += len(fits)
            if self._filled == _CHUNK:
                self.flush()
                rest = part[len(fits) :]
                self._rows[: len(rest)] = rest.numpy()
                self._filled = len(rest)

    def flush(self) -> None:
        """Write what is in memory; only the last time may it be less than a chunk."""
        if self._filled:
            self._rows[self._filled :] = 0
            self._dataset.resize(self._written + self._filled, axis=0)
            self._dataset.id.write_direct_chunk((self._written,), self._rows)
            self._written += self._filled
            self._filled = 0


class CodeWriter(BasePredictionWriter):
    """Writes predicted codes to codes-<rank>.h5 while they are made.

    Datasets: `values` and `indices` [nnz] hold the non-zero latents, `indptr` [rows + 1] where each
    row begins (scipy.sparse.csr_matrix takes the three as they are), `sample_index`, `token_index`
    and, where the shards have one, `label` [rows]. Attributes: d_sae, rows.

    Args:
        folder: Where the files go; one per rank.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(write_interval="batch")
        self.folder = Path(folder)
        self._whole: Any = None
        self._file: h5py.File | None = None
        self._columns: dict[str, _Column] = {}
        self._rows = self._nonzero = self._d_sae = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file under a temporary name."""
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._whole = replacing(self._path(trainer.global_rank))
            self._file = h5py.File(self._whole.__enter__(), "w")
            self._columns, self._rows, self._nonzero = {}, 0, 0
            self._append("indptr", torch.zeros(1, dtype=torch.int64))

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: SparseCode,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the rows of a batch."""
        if trainer.received_sigterm:  # Lightning looks for it in every loop but this
            raise SIGTERMException
        columns = as_activation_batch(batch)
        fires = prediction.values > 0
        ends = fires.sum(dim=1).cumsum(0) + self._nonzero
        with self._writing():
            self._append("values", prediction.values.float()[fires])
            self._append("indices", prediction.indices[fires])
            self._append("indptr", ends)
            self._append("sample_index", columns.sample_index)
            self._append("token_index", columns.token_index)
            if columns.label is not None:
                self._append("label", columns.label)
        self._d_sae = prediction.d_sae
        self._rows += len(ends)
        self._nonzero += int(fires.sum())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the file its name; remove those of ranks that an earlier run had more."""
        assert self._file is not None
        with self._writing():
            for column in self._columns.values():
                column.flush()
            self._file.attrs.update({"d_sae": self._d_sae, "rows": self._rows})
            self._file.close()
            self._file = None
            self._whole.__exit__(None, None, None)
        if trainer.is_global_zero:
            for rank in count(trainer.world_size):
                if not self._path(rank).exists():
                    break
                self._path(rank).unlink()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave no half-written file behind."""
        if self._file is not None:
            with suppress(OSError, RuntimeError):  # a full disk may refuse even to close it
                self._file.close()
            self._file = None
            self._whole.__exit__(type(exception), exception, None)

    def _path(self, rank: int) -> Path:
        return self.folder / f"codes-{rank:05d}.h5"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Name the folder when the disk refuses; HDF5 raises either kind."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            reason = system_message(error)
            raise LightsaeError(f"{self.folder}: codes cannot be written: {reason}") from error

    def _append(self, name: str, rows: Tensor) -> None:
        if name not in self._columns:
            self._columns[name] = _Column(self._file, name)
        self._columns[name].append(rows)


def read_codes(path: str | Path) -> tuple[Tensor, Tensor, Tensor, int]:
    """Values, indices, indptr and d_sae of a file that `CodeWriter` wrote.

    Args:
        path: The file.

    Returns:
        values [nnz] float32, indices [nnz] int64, indptr [rows + 1] int64 and d_sae.

    Raises:
        LightsaeError: If it is missing or not such a file.

    Example:
        >>> read_codes("no.h5")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: no.h5 is not a file of codes: no such file
    """
    if not Path(path).is_file():
        raise LightsaeError(f"{path} is not a file of codes: no such file")
    try:
        with open_hdf5(Path(path)) as file:
            values = torch.from_numpy(file["values"][:])
            indices = torch.from_numpy(file["indices"][:].astype(np.int64))
            return values, indices, torch.from_numpy(file["indptr"][:]), int(file.attrs["d_sae"])
    except ObstacleError as error:
        raise LightsaeError(f"{path} cannot be read here: {error}") from error
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise LightsaeError(f"{path} is not a file of codes: {error}") from error
