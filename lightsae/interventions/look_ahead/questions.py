"""Questions about a world in which facts change by the year, and the JSONL file that holds them."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from lightsae.errors import LightsaeError
from lightsae.files import replacing

QuestionSplit = Literal["find", "choice", "test"]


@dataclass(frozen=True)
class DatedQuestion:
    """What was so in a year.

    Attributes:
        prompt: The question; the model's text goes on with the answer.
        answer: What was so then.
        later: What came to be so in later years; empty if nothing changed since.
        year: The year that is asked about.
        entity: Whom it is about.
        attribute: What of it.

    Raises:
        LightsaeError: If prompt or answer is empty, or the answer among the later ones.

    Example:
        >>> DatedQuestion("As of 2009 the president is", "Bush", ("Obama", "Bush"), 2009)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: answer 'Bush' is among the later ones, 'Obama', 'Bush'
    """

    prompt: str
    answer: str
    later: tuple[str, ...]
    year: int
    entity: str = ""
    attribute: str = ""

    def __post_init__(self) -> None:
        _require_text(self.prompt, "prompt")
        for answer in (self.answer, *self.later):
            _require_text(answer, "answer")
        if normal(self.answer) in map(normal, self.later):
            told = ", ".join(map(repr, self.later))
            raise LightsaeError(f"answer {self.answer!r} is among the later ones, {told}")

    @property
    def subject(self) -> str:
        """Entity and attribute as one text; nothing without an entity."""
        return f"{self.attribute} of {self.entity}" if self.entity else ""


@dataclass(frozen=True)
class UndatedQuestion:
    """What is so, whatever the year.

    Attributes:
        prompt: The question; the model's text goes on with the answer.
        answer: The answer.
    """

    prompt: str
    answer: str

    def __post_init__(self) -> None:
        _require_text(self.prompt, "prompt")
        _require_text(self.answer, "answer")


@dataclass
class Questions:
    """The questions of a split.

    Attributes:
        dated: Those about a year.
        undated: Those of no year, for a guard.
        texts: Texts whose loss is a guard.
    """

    dated: list[DatedQuestion] = field(default_factory=list)
    undated: list[UndatedQuestion] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def leakable(self) -> list[DatedQuestion]:
        """Dated questions whose answer changed later."""
        return [each for each in self.dated if each.later]

    @property
    def unchanged(self) -> list[DatedQuestion]:
        """Dated questions whose answer is so to the end, as in the last year."""
        return [each for each in self.dated if not each.later]


def normal(text: str) -> str:
    """A text without differences of case and space.

    Example:
        >>> normal("  New  York ")
        'new york'
    """
    return " ".join(text.casefold().split())


def write_questions(path: Path, splits: Mapping[QuestionSplit, Questions]) -> None:
    """Write a file that `read_questions` reads; a crash leaves the old one or the new one.

    Args:
        path: The file.
        splits: Questions of each split.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for split, questions in splits.items():
            for record in _records(questions):
                file.write(json.dumps({"split": split, **record}, ensure_ascii=False) + "\n")


def read_questions(path: Path) -> dict[QuestionSplit, Questions]:
    """Read questions, one JSON object a line.

    Each has "split" ("find", "choice" or "test") and "kind": "dated" with "prompt", "answer",
    "later" (a list), "year" and if wanted "entity" and "attribute"; "undated" with "prompt" and
    "answer"; "text" with "text".

    Args:
        path: The file.

    Returns:
        The questions of each split.

    Raises:
        LightsaeError: If the file cannot be read or a line is no question.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "questions.jsonl"
        >>> asked = DatedQuestion("As of 2009 the president is", "Bush", ("Obama",), 2009)
        >>> write_questions(path, {"test": Questions(dated=[asked])})
        >>> read_questions(path)["test"].dated == [asked]
        True
    """
    found: dict[QuestionSplit, Questions] = {
        split: Questions() for split in get_args(QuestionSplit)
    }
    try:
        # Not splitlines: JSON leaves U+2028 and the like within a line as they are.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LightsaeError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                _take(json.loads(line), found)
            except (ValueError, RecursionError) as error:
                raise LightsaeError(f"{path}, line {number}: {error}") from error
    return found


def _records(questions: Questions) -> Iterable[dict[str, object]]:
    for dated in questions.dated:
        yield {"kind": "dated", **vars(dated)}
    for undated in questions.undated:
        yield {"kind": "undated", **vars(undated)}
    for text in questions.texts:
        yield {"kind": "text", "text": text}


def _take(record: object, found: Mapping[QuestionSplit, Questions]) -> None:
    """Put what a line holds into its split."""
    if not isinstance(record, dict):
        raise LightsaeError("expected a JSON object")
    splits = {str(split): questions for split, questions in found.items()}
    split, kind = record.get("split"), record.get("kind")
    if not isinstance(split, str) or split not in splits:
        raise LightsaeError(f"split is {split!r}, expected one of {', '.join(found)}")
    if not isinstance(kind, str) or kind not in _TAKEN:
        raise LightsaeError(f"kind is {kind!r}, expected one of {', '.join(_TAKEN)}")
    _TAKEN[kind](record, splits[split])


def _take_dated(record: Mapping[str, object], into: Questions) -> None:
    later = record.get("later", [])
    if not isinstance(later, list) or not all(isinstance(each, str) for each in later):
        raise LightsaeError(f"later is {later!r}, expected a list of strings")
    year = record.get("year")
    if isinstance(year, bool) or not isinstance(year, int):
        raise LightsaeError(f"year is {year!r}, expected an integer")
    question = DatedQuestion(
        _text(record, "prompt"), _text(record, "answer"), tuple(later), year,
        _text(record, "entity", ""), _text(record, "attribute", ""),
    )  # fmt: skip
    into.dated.append(question)


def _take_undated(record: Mapping[str, object], into: Questions) -> None:
    into.undated.append(UndatedQuestion(_text(record, "prompt"), _text(record, "answer")))


def _take_text(record: Mapping[str, object], into: Questions) -> None:
    text = _text(record, "text")
    _require_text(text, "text")
    into.texts.append(text)


_TAKEN: dict[str, Callable[[Mapping[str, object], Questions], None]] = {
    "dated": _take_dated,
    "undated": _take_undated,
    "text": _take_text,
}


def _text(record: Mapping[str, object], key: str, default: str | None = None) -> str:
    found = record.get(key, default)
    if not isinstance(found, str):
        raise LightsaeError(f"{key} is {found!r}, expected a string")
    return found


def _require_text(text: str, name: str) -> None:
    if not normal(text):
        raise LightsaeError(f"{name} is {text!r}, expected a text")
