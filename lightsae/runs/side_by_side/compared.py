"""What `lightsae compare` finds."""

from dataclasses import dataclass, field
from pathlib import Path

from lightsae.dictionaries import StabilityResult
from lightsae.evaluation.comparison.compare import Comparison


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
