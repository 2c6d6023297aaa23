"""docs/worked-examples.md: its question is one, and its names and programs are there."""

import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from lightsae.interventions.look_ahead import read_questions

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "worked-examples.md").read_text()


def test_the_question_of_the_page_is_read(tmp_path: Path) -> None:
    (line,) = re.findall(r"^ +(\{.*\})$", PAGE, re.MULTILINE)
    (tmp_path / "q.jsonl").write_text(line)
    (asked,) = read_questions(tmp_path / "q.jsonl")["test"].dated
    assert asked.later and asked.subject


def test_programs_and_configurations_are_there() -> None:
    programs = re.findall(r"python -m ([\w.]+)", PAGE)
    assert len(programs) == 3 and all(find_spec(name) for name in programs)
    configurations = re.findall(r"configs/[\w./-]+", PAGE)
    assert configurations and all((ROOT / name).is_file() for name in configurations)


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("look_ahead", ("LookAheadTask", "steer_both", "conclusion")),
        ("whisper", ("WhisperHallucinations",)),
    ],
)
def test_names_are_those_of_their_package(package: str, names: tuple[str, ...]) -> None:
    module = importlib.import_module(f"lightsae.interventions.{package}")
    for name in names:
        assert f"`{name}`" in PAGE and hasattr(module, name)
