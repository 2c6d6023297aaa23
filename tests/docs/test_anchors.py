"""docs/anchors.md: its Python runs, and it is linked."""

from pathlib import Path
from typing import Any

from .test_python import blocks

PAGE = Path(__file__).parents[2] / "docs" / "anchors.md"


def test_the_code_of_the_page_runs() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(PAGE)):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    anchor = names["module"].anchor
    assert 0 < anchor.nearness(names["module"].sae.W_dec).nearest == names["nearest"] < 1


def test_the_page_is_linked() -> None:
    assert "(docs/anchors.md)" in (PAGE.parents[1] / "README.md").read_text()
