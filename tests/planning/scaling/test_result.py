"""scaling.json comes back as it was, or is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightsae.errors import LightsaeError
from lightsae.planning.scaling import ScalingResult, fit_scaling

from .planted import planted


@pytest.fixture(scope="module")
def result() -> ScalingResult:
    broken = planted()[0]._replace(name="nan", loss=0.0)
    return fit_scaling([broken, *planted()], d_in=64, draws=20)


def test_it_is_the_same_after_a_save(result: ScalingResult, tmp_path: Path) -> None:
    result.save(tmp_path / "new" / "folder")
    assert ScalingResult.load(tmp_path / "new" / "folder") == result


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (lambda found: found.update(format=2), "no scaling of format 1"),
    "a key less": (lambda found: found.pop("runs"), "runs is missing"),
    "a key more": (lambda found: found.update(extra=1), "extra is unknown"),
    "a text for a number": (lambda found: found["runs"][0].update(loss="low"), "runs.0.loss"),
    "an unknown law": (lambda found: found["law"].update(form="magic"), "'magic' is no law"),
    "parameters of another law": (
        lambda found: found["sizes"][0]["law"]["parameters"].pop("zeta"), "'size' is no law"
    ),
    "a curve cut off": (lambda found: found["curves"][0]["loss"].pop(), "places without a loss"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_what_save_does_not_write_is_refused(
    case: str, result: ScalingResult, tmp_path: Path
) -> None:
    damage, told = DAMAGE[case]
    result.save(tmp_path)
    found = json.loads((tmp_path / "scaling.json").read_text())
    damage(found)
    (tmp_path / "scaling.json").write_text(json.dumps(found))
    with pytest.raises(LightsaeError, match=told):
        ScalingResult.load(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "scaling.json").write_bytes(content)
    with pytest.raises(LightsaeError, match=r"scaling\.json is no"):
        ScalingResult.load(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"scaling\.json cannot be read"):
        ScalingResult.load(tmp_path)
