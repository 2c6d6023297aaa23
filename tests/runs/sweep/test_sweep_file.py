"""sweep.json as it comes back, and what is no sweep.json."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightsae.errors import LightsaeError
from lightsae.runs.sweep import Result, SweepFile, choose_weight
from lightsae.runs.sweep.grid import Point


def write(path: Path) -> SweepFile:
    file = SweepFile(path)
    file.add("find 0", [Result(Point(2, 8, None, 0), "trained", 9, None, {"r2": 0.5})])
    failed = Result(Point(2, 8, 0.1, 1, "L1L2Ratio", 0.5), "failed", 3, "the loss is nan")
    file.add("grid", [failed, Result(Point(2, 8, 0.1, 0), "trained", 9, None, {"r2": math.nan})])
    file.finish([((2, 8, 0.1), choose_weight("L1L2Ratio", {}))])
    return file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "sweep.json")
    found = SweepFile(file.path)
    assert repr(found.stages) == repr(file.stages)  # NaN equals nothing
    assert repr(found.choices) == repr(file.choices)


SPOILED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "stages that are none": lambda content: content.update(stages=[1]),
    "a stage without autoencoders": lambda content: content["stages"][0].pop("autoencoders"),
    "metrics in a list": lambda content: _first(content).update(validation=[0.5]),
    "a metric of text": lambda content: _first(content).update(validation={"r2": "much"}),
    "a name of another": lambda content: _first(content).update(seed=7),
    "an unknown state": lambda content: _first(content).update(state="asleep"),
    "choices that are none": lambda content: content.update(choices={"a": 1}),
}


def _first(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["stages"][0]["autoencoders"][0]
    return found


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_file_is_named(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "sweep.json").path
    content = json.loads(path.read_text())
    SPOILED[kind](content)
    path.write_text(json.dumps(content))
    with pytest.raises(LightsaeError, match=r"sweep\.json is not whole"):
        SweepFile(path)
