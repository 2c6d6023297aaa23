import json
from pathlib import Path

import pytest

from lightsae.errors import LightsaeError
from lightsae.interventions.look_ahead.questions import (
    DatedQuestion,
    Questions,
    UndatedQuestion,
    read_questions,
    write_questions,
)

DATED = {
    "split": "test", "kind": "dated", "prompt": "In 2009 it is", "answer": "a", "later": ["b"],
    "year": 2009,
}  # fmt: skip


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    asked = DatedQuestion("In 2009 it is", "Zürich", ("b", "c"), 2009, "entity", "seat")
    text = "a text\nof two\u2028or\x85three lines"
    written = Questions([asked], [UndatedQuestion("It is", "red")], [text])
    write_questions(tmp_path / "q.jsonl", {"choice": written, "test": Questions()})
    found = read_questions(tmp_path / "q.jsonl")
    assert found == {"find": Questions(), "choice": written, "test": Questions()}


def test_questions_with_and_without_later_answers() -> None:
    changed, unchanged = DatedQuestion("p", "a", ("b",), 1), DatedQuestion("p", "b", (), 2)
    questions = Questions([changed, unchanged])
    assert questions.leakable == [changed]
    assert questions.unchanged == [unchanged]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "train"}, "split is 'train', expected one of find, choice, test"),
        ({"split": ["test"]}, r"split is \['test'\]"),
        ({"kind": "dates"}, "kind is 'dates', expected one of dated, undated, text"),
        ({"kind": ["dated"]}, r"kind is \['dated'\]"),
        ({"prompt": None}, "prompt is None, expected a string"),
        ({"later": "b"}, "later is 'b', expected a list of strings"),
        ({"later": [1]}, r"later is \[1\], expected a list of strings"),
        ({"year": "2009"}, "year is '2009', expected an integer"),
        ({"year": True}, "year is True, expected an integer"),
        ({"answer": "  "}, "answer is '  ', expected a text"),
        ({"prompt": " "}, "prompt is ' ', expected a text"),
        ({"kind": "text", "text": ""}, "text is '', expected a text"),
        ({"kind": "undated", "prompt": ""}, "prompt is '', expected a text"),
        ({"later": ["b", "A"]}, "answer 'a' is among the later ones, 'b', 'A'"),
        ({"kind": "text"}, "text is None, expected a string"),
    ],
)
def test_a_line_that_is_no_question(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(f"{json.dumps(DATED)}\n\n{json.dumps({**DATED, **change})}\n")
    with pytest.raises(LightsaeError, match=rf"q.jsonl, line 3: {message}"):
        read_questions(path)


@pytest.mark.parametrize("line", ["{", "[1]", "[" * 100_000])
def test_a_line_that_is_no_object(line: str, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(line)
    with pytest.raises(LightsaeError, match=r"q.jsonl, line 1: "):
        read_questions(tmp_path / "q.jsonl")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LightsaeError, match=r"no\.jsonl cannot be read"):
        read_questions(tmp_path / "no.jsonl")
    (tmp_path / "q.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(LightsaeError, match=r"q\.jsonl cannot be read"):
        read_questions(tmp_path / "q.jsonl")
