"""docs/scaling.md: its Python runs, and it is linked."""

from pathlib import Path
from typing import Any

import pytest

from lightsae.planning.scaling import ScalingResult

from .test_python import blocks

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(PAGE)):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    assert names["exponent"].value == pytest.approx(-0.4, abs=1e-3)
    assert names["largest"].predicted.value == pytest.approx(names["largest"].measured, rel=1e-3)
    assert ScalingResult.load("law") == names["result"]


def test_the_page_is_linked() -> None:
    assert "(docs/scaling.md)" in (PAGE.parents[1] / "README.md").read_text()
