"""Predicted codes: compressed sparse rows in HDF5, whole or not there."""

import errno
import os
import resource
import signal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lightsae.activations import ActivationBatch
from lightsae.errors import LightsaeError
from lightsae.runs.code_writer import CodeWriter, read_codes
from lightsae.sae import SparseCode

from ..training.helpers import D_IN, D_SAE, make_data, make_module, make_trainer, write_shards

ONE: Any = SimpleNamespace(received_sigterm=False, global_rank=0, world_size=1, is_global_zero=True)


def batch(rows: int, start: int = 0, label: bool = False) -> ActivationBatch:
    index = torch.arange(start, start + rows)
    return ActivationBatch(torch.zeros(rows, 2), index, index % 3, index % 2 if label else None)


def write(writer: CodeWriter, *codes: SparseCode, label: bool = False) -> None:
    start = 0
    for number, code in enumerate(codes):
        rows = batch(len(code), start, label)
        writer.write_on_batch_end(ONE, None, code, None, rows, number, 0)  # type: ignore[arg-type]
        start += len(code)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


CODES = [
    SparseCode(torch.tensor([[3.0, 1.0], [2.0, 0.0]]), torch.tensor([[4, 0], [1, 0]]), d_sae=5),
    SparseCode(torch.zeros(1, 2), torch.tensor([[0, 1]]), d_sae=5),
    SparseCode(torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.int64), d_sae=5),
    SparseCode(torch.tensor([[0.5, 0.25]]), torch.tensor([[3, 2]]), d_sae=5),
]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    writer = CodeWriter(tmp_path / "codes")
    writer.on_predict_start(ONE, None)  # type: ignore[arg-type]
    write(writer, *CODES, label=True)
    writer.on_predict_end(ONE, None)  # type: ignore[arg-type]
    return tmp_path / "codes" / "codes-00000.h5"


def test_only_what_fires_is_stored_row_by_row(written: Path) -> None:
    values, indices, indptr, d_sae = read_codes(written)
    assert values.tolist() == [3.0, 1.0, 2.0, 0.5, 0.25]
    assert indices.tolist() == [4, 0, 1, 3, 2]
    assert indptr.tolist() == [0, 2, 3, 3, 5]
    assert d_sae == 5


def test_the_rows_are_the_dense_code(written: Path) -> None:
    values, indices, indptr, d_sae = read_codes(written)
    dense = torch.zeros(len(indptr) - 1, d_sae)
    for row, (start, end) in enumerate(pairwise(indptr.tolist())):
        dense[row, indices[start:end]] = values[start:end]
    assert torch.equal(dense, torch.cat([code.to_dense() for code in CODES]))


def test_each_row_says_where_it_came_from(written: Path) -> None:
    with h5py.File(written) as file:
        assert file["sample_index"][:].tolist() == [0, 1, 2, 3]
        assert file["token_index"][:].tolist() == [0, 1, 2, 0]
        assert file["label"][:].tolist() == [0, 1, 0, 1]
        assert file.attrs["rows"] == 4
        assert {name: file[name].dtype for name in ("values", "indices", "indptr")} == {
            "values": np.float32,
            "indices": np.int32,
            "indptr": np.int64,
        }


def test_data_without_labels_have_no_label(tmp_path: Path) -> None:
    writer = CodeWriter(tmp_path)
    writer.on_predict_start(ONE, None)  # type: ignore[arg-type]
    write(writer, *CODES)
    writer.on_predict_end(ONE, None)  # type: ignore[arg-type]
    with h5py.File(tmp_path / "codes-00000.h5") as file:
        assert "label" not in file


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "64-true"])
def test_predict_writes_every_row_of_the_folder(precision: Any, tmp_path: Path) -> None:
    data = make_data(write_shards(tmp_path / "shards", rows=50, labels=True))
    module = make_module(d_in=D_IN)
    writer = CodeWriter(tmp_path / "codes")
    trainer = make_trainer(tmp_path, callbacks=[writer], precision=precision)
    trainer.predict(module, data, return_predictions=False)
    values, indices, indptr, d_sae = read_codes(tmp_path / "codes" / "codes-00000.h5")
    assert (len(indptr), d_sae) == (51, D_SAE)
    data.setup()
    x = torch.cat([rows.activations for rows in data.predict_dataloader()])
    code = module.sae.encode(x.to(module.sae.W_enc.dtype))
    fires = code.values > 0
    torch.testing.assert_close(values, code.values[fires].float(), rtol=1e-2, atol=1e-2)
    if precision != "bf16-true":
        assert torch.equal(indices, code.indices[fires])


def test_a_run_that_fails_leaves_the_codes_of_the_last_one(
    written: Path, tmp_path: Path, shards: Path
) -> None:
    before = written.read_bytes()

    class Fails(CodeWriter):
        def write_on_batch_end(self, *args: Any) -> None:
            super().write_on_batch_end(*args)
            if args[5] == 2:
                raise KeyError("anything")

    trainer = make_trainer(tmp_path, callbacks=[Fails(written.parent)])
    with pytest.raises(KeyError, match="anything"):
        trainer.predict(make_module(), make_data(shards), return_predictions=False)
    assert written.read_bytes() == before
    assert files(written.parent) == ["codes-00000.h5"]


def test_a_process_that_is_killed_leaves_no_file_under_the_final_name(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            writer = CodeWriter(tmp_path)
            writer.on_predict_start(ONE, None)  # type: ignore[arg-type]
            write(writer, *CODES)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    [left] = files(tmp_path)
    assert left.startswith(".codes-00000.h5")
    assert left.endswith(".tmp")


@pytest.mark.parametrize("failing", ["h5py.Dataset.resize", "h5py.File.close", "os.fsync"])
def test_a_full_disk_is_named_and_leaves_nothing(
    failing: str, tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / "codes"
    trainer = make_trainer(tmp_path, callbacks=[CodeWriter(folder)])
    data = make_data(shards)
    with monkeypatch.context() as patch:
        patch.setattr(failing, full)
        with pytest.raises(LightsaeError, match=f"{folder}: codes cannot be written: No space"):
            trainer.predict(make_module(), data, return_predictions=False)
    assert files(folder) == []


def test_a_disk_that_is_really_full_is_named(tmp_path: Path) -> None:
    many = SparseCode(torch.rand(4000, 8) + 1, torch.randint(99, (4000, 8)), d_sae=99)
    writer = CodeWriter(tmp_path)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        writer.on_predict_start(ONE, None)  # type: ignore[arg-type]
        with pytest.raises(
            LightsaeError, match="codes cannot be written: File too large"
        ) as caught:
            for _ in range(9):
                write(writer, many)
            writer.on_predict_end(ONE, None)  # type: ignore[arg-type]
        writer.on_exception(ONE, None, caught.value)  # type: ignore[arg-type]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, shards: Path) -> None:
    (tmp_path / "file").write_text("")
    trainer = make_trainer(tmp_path, callbacks=[CodeWriter(tmp_path / "file")])
    with pytest.raises(LightsaeError, match="file: codes cannot be written: File exists"):
        trainer.predict(make_module(), make_data(shards), return_predictions=False)


@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "text", "other HDF5"])
def test_a_file_of_something_else_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "codes.h5"
    if content is None:
        with h5py.File(path, "w") as file:
            file["x"] = 1
    else:
        path.write_bytes(content)
    with pytest.raises(LightsaeError, match=f"{path} is not a file of codes"):
        read_codes(path)
