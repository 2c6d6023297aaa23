"""What `lightsae compare` finds."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from lightsae.dictionaries import StabilityResult
from lightsae.dictionaries.stability.result_files import JSON
from lightsae.errors import LightsaeError
from lightsae.evaluation.comparison.compare import Comparison

COMPARISON = "comparison.json"


@dataclass
class Compared:
    """What came out.

    Attributes:
        comparisons: Settings beside the baseline.
        stabilities: Of the seeds of a setting, by its name.
        notes: What is left out.
        folders: Where each stability was written; empty without --out.
        out: The folder of the comparison, or None.
    """

    comparisons: list[Comparison] = field(default_factory=list)
    stabilities: dict[str, StabilityResult] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)
    out: Path | None = None


def stability_folders(folder: Path) -> list[Path]:
    """Where the stabilities of a folder lie: of `lightsae compare`, one of each setting.

    Args:
        folder: Any folder.

    Raises:
        LightsaeError: If its comparison.json is not what `lightsae compare` writes.

    Example:
        >>> stability_folders(Path("nowhere"))
        []
    """
    path = folder / COMPARISON
    if not path.is_file():
        return [folder] if (folder / JSON).is_file() else []
    try:
        names = [str(each["folder"]) for each in json.loads(path.read_text())["stability"]]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise LightsaeError(f"{path} is no comparison: {error!r}") from error
    for name in names:
        if name != "." and (Path(name).name != name or name == ".."):
            raise LightsaeError(f"{path}: {name!r} is no folder in {folder}")
    return [folder / name for name in names]
