"""Stability of seeds on the page: its section and its charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightsae.dictionaries import StabilityResult
from lightsae.report.figures.stability_charts import stability_charts
from lightsae.report.page.contents import grouped
from lightsae.report.reading.run_inputs import unique_names
from lightsae.report.stability_summary import StabilityTable, stability_facts, stability_tables
from lightsae.runs.side_by_side.compared import stability_folders

Stabilities = Mapping[Path, StabilityResult]


@dataclass(frozen=True)
class StabilitySection:
    """What the page says of a stability.

    Attributes:
        name: What the page calls it.
        facts: Sentences.
        tables: Its tables.
    """

    name: str
    facts: list[str]
    tables: list[StabilityTable]


def read_stabilities(folders: Sequence[Path]) -> dict[Path, StabilityResult]:
    """The stabilities among some folders, and in folders of comparisons.

    Raises:
        LightsaeError: If a stability.json is not what `lightsae compare` writes.
    """
    return {
        found: StabilityResult.load(found)
        for folder in folders for found in stability_folders(folder)
    }  # fmt: skip


def stability_sections(stabilities: Stabilities) -> list[StabilitySection]:
    """What the page says of each."""
    names = unique_names(list(stabilities))
    return [
        StabilitySection(name, stability_facts(found), stability_tables(found))
        for name, found in zip(names, stabilities.values(), strict=True)
    ]


def stability_chart_contents(stabilities: Stabilities) -> list[dict[str, Any]]:
    """The charts of all stabilities as the page's script reads them."""
    names = unique_names(list(stabilities))
    groups = ["Stability"] if len(names) == 1 else [f"Stability: {name}" for name in names]
    return [
        each
        for place, (group, found) in enumerate(zip(groups, stabilities.values(), strict=True))
        for each in grouped(group, stability_charts(found, f"stability/{place}"))
    ]
