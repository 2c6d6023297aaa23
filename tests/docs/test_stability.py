"""docs/stability.md: its Python runs from top to bottom."""

from pathlib import Path
from typing import Any

from .test_python import blocks

PAGE = Path(__file__).parents[2] / "docs" / "stability.md"


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(PAGE)):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    same = names["same"]
    assert len(same) == 256 and bool((names["order"][same[:, 1]] == same[:, 0]).all())
    assert names["of_pairs"].nanmean() > 0.3
    assert names["splits"].splits.tolist() == [True, False]
    assert [absorber[:3] for absorber in names["absorbed"].absorbers] == [(0, 0, 1)]
    assert names["stable"]["per_latent"].low > 1
    assert names["spans"].overlap.mean > 0.95 and names["spans"].beyond("data").low > 0.4
    assert names["found"].isolated_share == 1 and names["found"].subspace_share == 1


def test_the_page_is_linked() -> None:
    assert "(docs/stability.md)" in (PAGE.parents[1] / "README.md").read_text()
