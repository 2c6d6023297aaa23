"""Steerings on the page: their section and their charts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightsae.interventions.steering import SteeringResult
from lightsae.interventions.steering.result import FILE
from lightsae.report.figures.steering_charts import steering_charts
from lightsae.report.page.contents import grouped
from lightsae.report.page.render import SteeringSection
from lightsae.report.reading.run_inputs import unique_names
from lightsae.report.steering_summary import explained_choice, steering_columns, steering_rows

_MINUS = "\u2212"
Steerings = Mapping[Path, SteeringResult]


def read_steerings(folders: Sequence[Path]) -> dict[Path, SteeringResult]:
    """The steerings among some folders.

    Raises:
        LightsaeError: If a steering.json is not what `lightsae steer` writes.
    """
    return {
        folder: SteeringResult.load(folder / FILE)
        for folder in folders
        if (folder / FILE).is_file()
    }


def steering_sections(steerings: Steerings) -> list[SteeringSection]:
    """What the page says of each steering."""
    names = unique_names(list(steerings))
    return [
        SteeringSection(
            name=name, verdict=found.verdict, about=explained_choice(found),
            columns=steering_columns(found), rows=steering_rows(found),
            works=found.outcome == "works",
            latents={layer: _told(found, layer) for layer in found.latents},
        )
        for name, found in zip(names, steerings.values(), strict=True)
    ]  # fmt: skip


def steering_chart_contents(steerings: Steerings) -> list[dict[str, Any]]:
    """The charts of all steerings as the page's script reads them."""
    names = unique_names(list(steerings))
    groups = ["Steering"] if len(names) == 1 else [f"Steering: {name}" for name in names]
    return [
        each
        for place, (group, found) in enumerate(zip(groups, steerings.values(), strict=True))
        for each in grouped(group, steering_charts(found, f"steering/{place}"))
    ]


def _told(result: SteeringResult, layer: str) -> str:
    """Latents of a layer, with a minus where less of one goes with label 1."""
    pairs = zip(result.latents[layer], result.signs[layer], strict=True)
    return ", ".join(f"{latent} ({'+' if sign > 0 else _MINUS})" for latent, sign in pairs)
