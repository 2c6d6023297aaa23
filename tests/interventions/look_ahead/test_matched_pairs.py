import pytest

from lightsae.errors import LightsaeError
from lightsae.interventions.look_ahead.leak_rate import AnswerKind
from lightsae.interventions.look_ahead.matched_pairs import contrast_pairs
from lightsae.interventions.look_ahead.questions import DatedQuestion

KINDS: tuple[AnswerKind, ...] = ("as of then", "later", "other")


def asked(year: int, attribute: str, number: int) -> DatedQuestion:
    return DatedQuestion(f"{attribute} of {number} in {year}", "a", ("b",), year, "", attribute)


QUESTIONS = [asked(year, of, number) for year in (1, 2) for of in ("x", "y") for number in range(9)]
GIVEN = [KINDS[(place * 7 + place // 5) % 3] for place in range(len(QUESTIONS))]


def test_both_of_a_pair_are_of_one_year_and_attribute_and_answered_differently() -> None:
    pairs = contrast_pairs(QUESTIONS, GIVEN)
    kind = dict(zip(QUESTIONS, GIVEN, strict=True))
    for aware, ahead in pairs:
        assert (aware.year, aware.attribute) == (ahead.year, ahead.attribute)
        assert (kind[aware], kind[ahead]) == ("as of then", "later")
    used = [question for pair in pairs for question in pair]
    assert len(set(used)) == len(used)


def test_as_many_pairs_as_each_year_and_attribute_allows() -> None:
    fewest = 0
    for start in range(0, len(GIVEN), 9):
        group = GIVEN[start : start + 9]
        fewest += min(group.count("as of then"), group.count("later"))
    assert len(contrast_pairs(QUESTIONS, GIVEN)) == fewest > 2


def test_the_seed_draws_the_pairs() -> None:
    assert contrast_pairs(QUESTIONS, GIVEN, seed=1) == contrast_pairs(QUESTIONS, GIVEN, seed=1)
    assert contrast_pairs(QUESTIONS, GIVEN, seed=1) != contrast_pairs(QUESTIONS, GIVEN, seed=2)


def test_too_few_pairs() -> None:
    kinds: list[AnswerKind] = ["later"] * len(QUESTIONS)
    with pytest.raises(LightsaeError, match=r"0 pairs .*answers are {'as of then': 0, 'later': 36"):
        contrast_pairs(QUESTIONS, kinds)
