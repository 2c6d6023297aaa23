"""The code of docs/transcoders.md runs, and a reader finds the page."""

from pathlib import Path
from typing import Any

import pytest
import torch

from .test_python import blocks

PAGE = Path(__file__).parents[2] / "docs" / "transcoders.md"


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    (block,) = blocks(PAGE)
    exec(compile(block, PAGE.name, "exec"), names)
    assert names["y_hat"].shape == names["y"].shape
    assert torch.equal(names["again"](names["x"]), names["transcoder"](names["x"]))


def test_the_page_is_linked() -> None:
    assert "(docs/transcoders.md)" in (PAGE.parents[1] / "README.md").read_text()
