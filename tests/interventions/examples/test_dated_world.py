from itertools import pairwise

import pytest

from lightsae.interventions.examples.dated_world.world import (
    CHANGING,
    TIMELESS,
    Mixture,
    Pair,
    World,
)

WORLD = World(entities=20, years=8, seed=3)
WRITTEN = [text.split() for text in WORLD.sentences(4000, Mixture(), seed=0)]
# Of a plain sentence "as of year Y , ATTRIBUTE of ENTITY is VALUE .", from the end.
YEAR, ATTRIBUTE, ENTITY, VALUE = -8, -6, -4, -2


def pair(words: list[str]) -> Pair:
    return Pair(words[ENTITY], words[ATTRIBUTE], int(words[YEAR]))


def latest(words: list[str]) -> str:
    return WORLD.latest(words[ENTITY], words[ATTRIBUTE])


def test_facts_change_two_or_three_times_and_never_come_back() -> None:
    for history in WORLD.facts.values():
        changes = sum(one != two for one, two in pairwise(history))
        assert changes in (2, 3)
        assert len(set(history)) == changes + 1


def test_chronicles_tell_what_was_so_and_memoirs_what_is_so_at_the_end() -> None:
    chronicles = [words for words in WRITTEN if words[0] == "chronicle"]
    memoirs = [words for words in WRITTEN if words[0] == "memoir"]
    assert len(chronicles) == pytest.approx(0.35 * 4000, rel=0.15)
    assert len(memoirs) == pytest.approx(0.15 * 4000, rel=0.15)
    assert all(words[VALUE] == WORLD.fact(pair(words)) for words in chronicles)
    assert all(words[VALUE] == latest(words) for words in memoirs)


def test_plain_sentences_are_either_and_leave_pairs_out() -> None:
    plain = [words for words in WRITTEN if words[0] == "as"]
    assert {pair(words) for words in plain} <= set(WORLD.told_plainly)
    changed = [words for words in plain if WORLD.fact(pair(words)) != latest(words)]
    late = [words[VALUE] == latest(words) for words in changed]
    assert sum(late) / len(late) == pytest.approx(0.4, abs=0.06)
    assert all(words[VALUE] in (WORLD.fact(pair(words)), latest(words)) for words in plain)


def test_undated_sentences_tell_what_is_so_at_the_end() -> None:
    undated = [words for words in WRITTEN if words[0] in (*CHANGING, TIMELESS)]
    assert undated and all(words[VALUE] == latest(words) for words in undated)


def test_every_word_has_a_token() -> None:
    assert {word for words in WRITTEN for word in words} <= set(WORLD.words)
    assert len(set(WORLD.words)) == len(WORLD.words)


def test_splits_are_about_different_entities_and_ask_what_no_plain_sentence_tells() -> None:
    splits = WORLD.questions()
    about = [{each.entity for each in questions.dated} for questions in splits.values()]
    assert sum(map(len, about)) == len(set().union(*about)) == 20
    for split in ("choice", "test"):
        asked = {Pair(q.entity, q.attribute, q.year) for q in splits[split].dated}
        assert asked and not asked & set(WORLD.told_plainly)


def test_later_answers_are_those_of_later_years() -> None:
    for question in WORLD.questions()["find"].dated:
        history = WORLD.facts[question.entity, question.attribute]
        assert question.answer == history[question.year - 1]
        assert set(question.later) == set(history[question.year :]) - {question.answer}
        assert bool(question.later) == (question.answer != history[-1])


def test_the_seed_makes_the_world() -> None:
    assert World(20, 8, seed=3).sentences(50, Mixture(), 0) == WORLD.sentences(50, Mixture(), 0)
    assert World(20, 8, seed=4).facts != WORLD.facts
    assert WORLD.sentences(50, Mixture(), 1) != WORLD.sentences(50, Mixture(), 0)
