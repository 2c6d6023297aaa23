"""docs/steering.md: its Python runs from top to bottom, and its tables name what there is."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from lightsae.interventions.steering.options import Kind
from lightsae.interventions.steering.result import Outcome

from .test_python import blocks

PAGE = Path(__file__).parents[2] / "docs" / "steering.md"


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(PAGE)):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    assert names["result"].outcome in get_args(Outcome)
    assert (tmp_path / "runs" / "confusion" / "steering.json").is_file()


def test_every_kind_and_outcome_has_a_row() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows == ["kind", *get_args(Kind), *get_args(Outcome)]
