"""What the tests of the command line share."""

from collections.abc import Callable
from pathlib import Path

Ask = Callable[..., tuple[int, str]]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
