import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightsae.activations import Manifest, ShardWriter
from lightsae.activations.tools.info import info
from lightsae.errors import LightsaeError

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
    assert "0 of 4,800 values (checked when written; verify checks again)" in told
    assert re.search(r"mixing of labels, 1 is random \d", told)


def test_norms_are_those_of_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ShardWriter(tmp_path / "s", Manifest(d_in=2, dtype="float32")) as writer:
        writer.write(torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 2.0]]), torch.arange(3))
    info(str(tmp_path / "s"))
    assert "norms: least, 5%, median, 95%, most 1.02, 1.02, 2.04, 5.08, 5.08" in said(capsys)


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"batch_size": -3}, {"buffer_rows": 0}, {"buffer_rows": -5}]
)
def test_numbers_below_one_are_refused(make_shards: Shards, options: dict[str, int]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(LightsaeError, match=f"^{name} is {value}, expected at least 1$"):
        info(str(make_shards()), **options)


def test_labels_without_a_name_are_refused(make_shards: Shards) -> None:
    folder = make_shards()
    says = "manifest.json: classes has 1 name, expected at least 3: there is a label 2$"
    replace(Manifest.load(folder), classes=["a"]).save(folder)
    with pytest.raises(LightsaeError, match=says):
        info(str(folder))
    replace(Manifest.load(folder), classes=["a", "b", "c"]).save(folder)
    info(str(folder))


def test_a_folder_that_is_not_complete_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = ShardWriter(tmp_path, Manifest(d_in=2, dtype="float32"), rows_per_shard=1)
    writer.write(torch.ones(1, 2), torch.arange(1))
    writer.abort()
    info(str(tmp_path))
    assert "complete no: the command that began it goes on" in said(capsys)
