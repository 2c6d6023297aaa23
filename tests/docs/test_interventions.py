"""docs/interventions.md: its Python runs from top to bottom."""

from pathlib import Path
from typing import Any

import torch

from .test_python import blocks

PAGE = Path(__file__).parents[2] / "docs" / "interventions.md"


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(PAGE)):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    assert names["seen"].lead == (8, 5)
    assert torch.equal(names["steered"][2:], names["logits"][2:])
    assert not torch.equal(names["steered"][:2], names["logits"][:2])
    assert names["class_effects"].ablation.mean.shape == (2, 10)
    assert bool(names["class_effects"].ablation.mean.isfinite().all())


def test_the_page_is_linked() -> None:
    assert "(docs/interventions.md)" in (PAGE.parents[1] / "README.md").read_text()
