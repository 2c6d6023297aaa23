"""What an answer to a dated question gives away, and the rates of it."""

from collections.abc import Sequence
from typing import Literal

import torch

from lightsae.interventions.look_ahead.questions import DatedQuestion, normal
from lightsae.interventions.steering.task import Measured

AnswerKind = Literal["as of then", "later", "other"]


def answer_kind(question: DatedQuestion, text: str) -> AnswerKind:
    """Whether a model answered by the facts of the year, by those of a later one, or neither.

    Ours: a text answers what it begins with, whatever the case; of several answers the longest.

    Args:
        question: What was asked.
        text: What the model wrote.

    Example:
        >>> asked = DatedQuestion("As of 2009 the president is", "Bush", ("Obama",), 2009)
        >>> answer_kind(asked, " Obama."), answer_kind(asked, "Bush"), answer_kind(asked, "Bushel")
        ('later', 'as of then', 'other')
    """
    given = [each for each in (question.answer, *question.later) if answers(text, each)]
    if not given:
        return "other"
    return "as of then" if max(given, key=len) == question.answer else "later"


def answers(text: str, answer: str) -> bool:
    """Whether a text begins with an answer, as whole words.

    Example:
        >>> answers(" New York.", "new york"), answers("Yorkshire", "York")
        (True, False)
    """
    said, wanted = normal(text), normal(answer)
    return said.startswith(wanted) and not said[len(wanted) :][:1].isalnum()


def share(
    kinds: Sequence[AnswerKind], kind: AnswerKind, subjects: Sequence[str] | None = None
) -> Measured:
    """Share of answers of a kind; that of "later" is the leak rate.

    Args:
        kinds: Of each question what the answer is.
        kind: Which are counted.
        subjects: Of each question what it is about; see `rate`.

    Example:
        >>> share(["later", "as of then", "later", "other"], "later").value
        0.5
    """
    return rate([each == kind for each in kinds], subjects)


def rate(hits: Sequence[bool], subjects: Sequence[str] | None = None) -> Measured:
    """A share of questions as a metric.

    Ours: questions about one attribute of one entity share its facts, of neighbouring years above
    all, and are one sample, so that intervals are over these.

    Args:
        hits: Of each question whether it counts.
        subjects: Of each question what it is about, see `DatedQuestion.subject`; one of nothing
            ("") is a sample of its own, as all are where this is left out.

    Example:
        >>> rate([True, False, True], ["mayor of Rome", "mayor of Rome", ""])
        Measured(amounts=tensor([1., 1.], dtype=torch.float64), \
counts=tensor([2., 1.], dtype=torch.float64))
    """
    given = [""] * len(hits) if subjects is None else subjects
    keys = [subject or number for number, subject in enumerate(given)]
    place = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    index = torch.tensor([place[key] for key in keys], dtype=torch.int64)
    amounts = torch.zeros(len(place), dtype=torch.float64)
    counts = amounts.index_add(0, index, torch.ones(len(hits), dtype=torch.float64))
    return Measured(amounts.index_add(0, index, torch.tensor(hits, dtype=torch.float64)), counts)
