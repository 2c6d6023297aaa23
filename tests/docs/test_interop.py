"""The table of docs/interop.md says what the formats do."""

import re
from pathlib import Path

import pytest

from lightsae.errors import LightsaeError
from lightsae.interop import FORMATS
from lightsae.sae import SparseAutoencoder
from lightsae.sae.normalization import ROW_WISE

from ..interop.examples import TRANSCODER_FORMATS, example
from ..interop.ours import RULES, our_transcoder, ours
from .test_python import blocks

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"


def _rows() -> dict[str, list[str]]:
    lines = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in lines}


ROWS = _rows()


def _holds(name: str, sae: SparseAutoencoder) -> bool:
    sae.b_dec.data.zero_()
    try:
        FORMATS[name].files(sae)
    except LightsaeError:
        return False
    return True


def _listed(cell: str) -> list[str]:
    return [word.strip() for word in cell.split(",") if word.strip()]


def test_every_format_has_a_row_and_every_row_a_format() -> None:
    assert list(ROWS) == list(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_the_files_are_those_that_are_written(name: str) -> None:
    for file in FORMATS[name].files(example(name)):
        assert file in ROWS[name][0]


@pytest.mark.parametrize("name", FORMATS)
def test_the_rules_are_those_that_are_written(name: str) -> None:
    kind = example(name).normalization
    assert _listed(ROWS[name][1]) == [rule for rule in RULES if _holds(name, ours(rule, kind))]


@pytest.mark.parametrize("name", FORMATS)
def test_the_normalisations_by_row_are_those_that_are_written(name: str) -> None:
    rule = type(example(name).selection).__name__
    found = {kind for kind in ROW_WISE if _holds(name, ours(rule, kind))}
    assert set(_listed(ROWS[name][2])) == found


@pytest.mark.parametrize("name", TRANSCODER_FORMATS)
def test_the_transcoders_are_those_that_are_written(name: str) -> None:
    rules, kinds = _listed(ROWS[name][1]), _listed(ROWS[name][3])
    skips = {"plain": False, "skip": True}
    held = {
        (rule, kind): _holds(name, our_transcoder(rule, skip=skip))
        for rule in RULES
        for kind, skip in skips.items()
    }
    assert kinds == [kind for kind in skips if any(held[rule, kind] for rule in RULES)]
    for kind in kinds:
        assert rules == [rule for rule in RULES if held[rule, kind]]


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in TRANSCODER_FORMATS])
def test_a_format_without_transcoders_has_none_in_its_row(name: str) -> None:
    assert not _listed(ROWS[name][3])


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(PAGE):
        exec(compile(block, PAGE.name, "exec"), {})
