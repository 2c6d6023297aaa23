import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from lightsae.activations import Manifest, ShardWriter
from lightsae.activations.tools.info import info

Shards = Callable[..., Path]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return re.sub(r"[│\s]+", " ", capsys.readouterr().out)


def test_a_folder_is_described(make_shards: Shards, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_shards(rows=600, tokens=1, chunk_rows=4)
    info(str(folder), batch_size=8)
    told = said(capsys)
    assert "600 of 8 float32" in told
    assert "in 15 shards" in told
    assert "layer, tokens blocks.1, unnamed" in told
    assert "0 values in 256 rows looked at" in told
    assert re.search(r"mixing of labels, 1 is random \d", told)


def test_norms_are_those_of_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ShardWriter(tmp_path / "s", Manifest(d_in=2, dtype="float32")) as writer:
        writer.write(torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 2.0]]), torch.arange(3))
    info(str(tmp_path / "s"))
    assert "norms: least, 5%, median, 95%, most 1.02, 1.02, 2.04, 5.08, 5.08" in said(capsys)


def test_values_that_are_not_finite_are_counted(
    make_shards: Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_shards(rows=40)
    with h5py.File(folder / "shard-00000.h5", "r+") as file:
        file["activations"][3, 2:4] = np.nan
    info(str(folder))
    assert "2 values in 40 rows looked at" in said(capsys)


def test_a_folder_that_is_not_complete_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = ShardWriter(tmp_path, Manifest(d_in=2, dtype="float32"), rows_per_shard=1)
    writer.write(torch.ones(1, 2), torch.arange(1))
    writer.abort()
    info(str(tmp_path))
    assert "complete no: the command that began it goes on" in said(capsys)
