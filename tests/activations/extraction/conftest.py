"""An extraction: the rows it writes, their order, and what it refuses before it begins."""

from pathlib import Path

import pytest

from .extractions import save_picture


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(14):
        save_picture(tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png", number)
    return tmp_path / "pictures"
