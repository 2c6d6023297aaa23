"""The reading guide of CONTRIBUTING.md leads to files that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_that_it_names_is_there() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text()))
    there = [
        f"/{path.relative_to(ROOT)}" for room in ("lightsae", "kernels", "tests") for path in
        (ROOT / room).rglob("*.py")
    ]  # fmt: skip
    assert len(named) > 12
    assert {name for name in named if not any(p.endswith(f"/{name}") for p in there)} == set()


def test_every_folder_that_it_names_is_there() -> None:
    named = set(re.findall(r"`([\w/]+/)`", (ROOT / "CONTRIBUTING.md").read_text()))
    folders = [path for room in ("lightsae", "kernels", "tests") for path in
               (ROOT / room, *(ROOT / room).rglob("*/"))]  # fmt: skip
    there = [f"/{path.relative_to(ROOT)}/" for path in folders if path.is_dir()]
    assert {name for name in named if not any(p.endswith(f"/{name}") for p in there)} == set()
