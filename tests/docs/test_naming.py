"""docs/naming.md: its Python runs from top to bottom, and its commands are there."""

import re
from pathlib import Path
from typing import Any

from lightsae.cli.program import _help

from .test_python import blocks

PAGE = Path(__file__).parents[2] / "docs" / "naming.md"


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(PAGE)):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
        if number == 0:
            assert names["names"].names == ["elm", "cat", None, None]
            assert (names["names"].alignment_rate, names["names"].coverage) == (0.5, 0.5)
    assert names["by_label"].names[:2] == ["striped", None]
    assert names["distinct"].latents.shape == (12, 2)
    assert names["checks"].verdict.startswith("the names hold: 4 of 4")
    assert (tmp_path / "checks" / "name_checks.json").is_file()


def test_its_commands_are_there_and_it_is_linked() -> None:
    used = set(re.findall(r"^    lightsae (\w+)", PAGE.read_text(), re.MULTILINE))
    assert {"vocabulary", "name"} <= used
    assert all(f"  {word} " in _help() for word in used)
    assert "(docs/naming.md)" in (PAGE.parents[1] / "README.md").read_text()
