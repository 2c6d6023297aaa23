import pytest

from lightsae.interventions.look_ahead.leak_rate import AnswerKind, answer_kind, rate, share
from lightsae.interventions.look_ahead.questions import DatedQuestion


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("York", "as of then"),
        (" york, and", "as of then"),
        ("York Hill.", "later"),
        ("New\nYork", "later"),
        ("Yorkshire", "other"),
        ("the capital is York", "other"),
        ("", "other"),
    ],
)
def test_what_an_answer_is(text: str, kind: AnswerKind) -> None:
    asked = DatedQuestion("In 7 it is", "York", ("York Hill", "New York"), 7)
    assert answer_kind(asked, text) == kind


def test_the_leak_rate_is_a_share_of_all_questions() -> None:
    kinds: list[AnswerKind] = ["later", "later", "as of then", "other", "other"]
    assert share(kinds, "later").value == pytest.approx(2 / 5)
    assert share(kinds, "as of then").value == pytest.approx(1 / 5)
    assert share(kinds, "later").amounts.tolist() == [1, 1, 0, 0, 0]


def test_a_rate_counts_each_sample_once() -> None:
    found = rate([True, False, False, True])
    assert found.counts.tolist() == [1, 1, 1, 1]
    assert found.value == 0.5


def test_questions_about_the_same_fact_are_one_sample() -> None:
    kinds: list[AnswerKind] = ["later", "as of then", "later", "later", "other"]
    subjects = ["mayor of Rome", "mayor of Rome", "", "", "seat of Rome"]
    found = share(kinds, "later", subjects)
    assert found.amounts.tolist() == [1, 1, 1, 0] and found.counts.tolist() == [2, 1, 1, 1]
    assert found.value == share(kinds, "later").value


def test_a_question_without_an_entity_has_no_subject() -> None:
    assert DatedQuestion("p", "a", (), 1, "Rome", "mayor").subject == "mayor of Rome"
    assert DatedQuestion("p", "a", (), 1, "", "mayor").subject == ""
