"""The metrics of a run: one JSON object per line, taken back when a run goes on."""

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lightsae.errors import LightsaeError
from lightsae.training import MetricsFile

from ..training.helpers import make_data, make_module, make_trainer


def test_each_logged_step_is_a_line(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "new" / "metrics.jsonl")
    file.log_metrics({"train/loss": 0.5, "epoch": 0}, step=9)
    file.log_metrics({"train/loss": 0.25, "epoch": 1}, step=19)
    lines = file.path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 9, "train/loss": 0.5, "epoch": 0},
        {"step": 19, "train/loss": 0.25, "epoch": 1},
    ]
    assert json.loads(lines[0]).keys() == {"step", "train/loss", "epoch"}
    assert '"epoch": 1}' in lines[1]


def test_what_is_no_number_becomes_null_so_that_every_line_is_json(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.log_metrics({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0}, step=0)
    assert file.rows() == [{"step": 0, "a": None, "b": None, "c": None, "d": 1.0}]
    assert "NaN" not in file.path.read_text()


def test_an_evaluation_carries_the_step_of_the_run_and_no_epoch(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "evaluations.jsonl", at_step=40)
    file.log_metrics({"test/r2": 0.5, "epoch": 0}, step=0)
    assert file.rows() == [{"step": 40, "test/r2": 0.5}]


def test_the_same_line_twice_is_one(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for value in (0.5, 0.5, 0.25):
        file.log_metrics({"a": value}, step=0)
    assert file.rows() == [{"step": 0, "a": 0.5}, {"step": 0, "a": 0.25}]


def test_rewinding_drops_the_steps_that_come_again(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in range(4):
        file.log_metrics({"a": step}, step=step)
    file.log_metrics({"val/a": 7.0}, step=3)
    file.rewind(step=3)
    assert [row["step"] for row in file.rows()] == [0, 1, 2]
    file.log_metrics({"val/a": 7.0}, step=3)
    assert [row["step"] for row in file.rows()] == [0, 1, 2, 3]


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.log_metrics({"a": 1.0}, step=0)
    with file.path.open("a") as raw:
        raw.write('{"step": 1, "a"')
    assert file.rows() == [{"step": 0, "a": 1.0}]
    file.rewind(step=5)
    file.log_metrics({"a": 2.0}, step=1)
    assert file.rows() == [{"step": 0, "a": 1.0}, {"step": 1, "a": 2.0}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"what is this", "line 2 is not JSON"),
        (b"\xff\xfe", "line 2 is not JSON"),
        (b"[" * 100_000, "line 2 is not JSON"),
        (b"5", "line 2 is not an object with a step"),
        (b'{"a": 1}', "line 2 is not an object with a step"),
        (b'{"step": null}', "line 2 is not an object with a step"),
    ],
    ids=["words", "binary", "deep", "number", "no step", "step null"],
)
def test_a_damaged_line_is_named(line: bytes, message: str, tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.path.write_bytes(b'{"step": 0}\n' + line + b"\n")
    with pytest.raises(LightsaeError, match=f"{file.path}: {message}"):
        file.rewind(step=1)


def test_rewinding_a_file_that_is_not_there_makes_none(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.rewind(step=0)
    assert file.rows() == []
    assert not file.path.exists()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.open", full)
    file = MetricsFile(tmp_path / "metrics.jsonl")
    with pytest.raises(LightsaeError, match=r"metrics\.jsonl cannot be written: No space left"):
        file.log_metrics({"a": 1.0}, step=0)


def test_a_run_from_the_beginning_takes_back_all_lines(shards: Path, tmp_path: Path) -> None:
    for _ in range(2):
        make_trainer(tmp_path, max_steps=4).fit(make_module(), make_data(shards))
    rows = MetricsFile(tmp_path / "metrics.jsonl").rows()
    assert [row["step"] for row in rows] == [0, 1, 2, 3]


def test_it_says_what_a_logger_must(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.log_hyperparams({"lr": torch.tensor(0.1)})
    assert (file.name, file.version) == ("", "")
    assert file.log_dir == file.save_dir == str(tmp_path)
    assert not file.path.exists()
