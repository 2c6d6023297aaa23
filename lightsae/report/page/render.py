"""The HTML: Jinja's template with style, script and data inlined."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from math import isnan
from pathlib import Path
from typing import Any

from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.files import replacing
from lightsae.report.page.packing import json_text
from lightsae.report.reading.comparison import Cell, Column, Comparison
from lightsae.report.reading.run_inputs import RunInputs
from lightsae.report.steering_summary import SteeringRow

_SCRIPTS = ("data.js", "elements.js", "charts.js", "names.js", "gallery.js", "effects.js",
            "latent.js", "main.js")  # fmt: skip
_DASH, _MINUS = "\u2013", "\u2212"
_ASSETS = files("lightsae.report.page") / "assets"


@dataclass(frozen=True)
class SteeringSection:
    """What the page says of a steering.

    Attributes:
        name: What the page calls it.
        verdict: A sentence.
        about: How it was chosen, and what the numbers are.
        columns: Headings of the table.
        rows: Its rows.
        works: Whether the verdict is that it works.
        latents: Of each layer the numbers of the latents, as a text.
    """

    name: str
    verdict: str
    about: str
    columns: list[str]
    rows: list[SteeringRow]
    works: bool
    latents: dict[str, str]


def write_page(
    path: Path,
    *,
    runs: Sequence[RunInputs],
    baseline: int,
    table: Comparison | None,
    contents: dict[str, Any],
    arrays: str,
    sheets: Sequence[str],
    chosen: Sequence[str],
    steerings: Sequence[SteeringSection] = (),
    stabilities: Sequence[Any] = (),
) -> None:
    """Write the page; a crash leaves the old file or the new one.

    Args:
        path: The file.
        runs: All runs; none where only steerings or stabilities are shown.
        baseline: Which of them the others are compared with.
        table: The comparison; None without runs.
        contents: What the script reads, plain values.
        arrays: Text of the arrays.
        sheets: Sheets of thumbnails, base64.
        chosen: What a sweep chose, a sentence each.
        steerings: Sections of steerings.
        stabilities: Sections of the stability of seeds.

    Raises:
        LightsaeError: If the file cannot be written.
        MissingExtraError: If Jinja2 is not installed.
    """
    jinja = require("jinja2", extra="report")
    environment = jinja.Environment(
        autoescape=True, undefined=jinja.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = cell_text
    script = _script()
    text = environment.from_string(_asset("page.html")).render(
        runs=runs, baseline=runs[baseline] if runs else None, table=table, sheets=sheets,
        arrays=arrays,
        charts=contents["charts"], notes=contents["notes"], galleries=contents["runs"],
        chosen=chosen, steerings=steerings, stabilities=stabilities,
        today=date.today().isoformat(), style=_asset("style.css"), script=script,
        script_hash=_hash(script),
        contents=require("markupsafe", extra="report").Markup(json_text(contents)),
    )  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LightsaeError(f"{path} cannot be written: {error.strerror}") from error


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _script() -> str:
    """The page's script: all files within one function, so that nothing of it is global."""
    parts = "\n".join(_asset(name) for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


def _hash(script: str) -> str:
    """What the page's policy calls the one script that may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def cell_text(cell: Cell, column: Column, signed: bool = False) -> str:
    """A number of the table, with a sign if it is a difference, without a leading zero.

    Example:
        >>> column = Column("R2", "", digits=3)
        >>> cell_text(Cell(0.9254), column), cell_text(Cell(0.01), column, signed=True)
        ('.925', '+.010')
    """
    if isnan(cell.mean):
        return _DASH
    sign = "+" if (signed and column.title != "pairs") or column.signed else ""
    digits = column.digits + (column.digits == 3 and signed and abs(cell.mean) < 0.01)
    return _number(cell.mean, digits, sign) + interval_text(cell, digits)


def interval_text(cell: Cell, digits: int) -> str:
    """Half of the interval, if there are several seeds."""
    return "" if isnan(cell.half_width) else f" ± {_number(cell.half_width, digits)}"


def _number(value: float, digits: int, sign: str = "") -> str:
    rounded = round(value, digits) + 0.0  # there is no -0.0
    text = f"{rounded:{sign if rounded else ''}.{digits}f}".replace("-", _MINUS)
    return text.replace("0.", ".", 1) if abs(value) < 1 and digits > 1 else text
