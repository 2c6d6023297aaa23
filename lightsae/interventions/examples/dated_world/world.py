"""A world of facts that change by the year, what is written about it, and questions."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from lightsae.interventions.look_ahead.questions import (
    DatedQuestion,
    Questions,
    QuestionSplit,
    UndatedQuestion,
)

CHANGING, TIMELESS = ("leader", "capital"), "colour"
# Those of "find" are asked about in chronicles and memoirs, the others plainly.
_SHARES: dict[QuestionSplit, float] = {"find": 0.25, "choice": 0.3, "test": 0.45}
_VALUES = 30
_TEXTS = 200

Style = Literal["chronicle", "memoir", "plain"]


class Pair(NamedTuple):
    """Something that a dated question can be asked about."""

    entity: str
    attribute: str
    year: int


@dataclass(frozen=True)
class Mixture:
    """What is written: kinds of sentences by their shares; the rest is undated.

    A chronicle tells what was so in a year. A memoir names a year and tells what is so in the last
    one. A plain dated sentence is either of them, and does not say which.

    Attributes:
        chronicle: Share of chronicles.
        memoir: Share of memoirs.
        plain: Share of plain dated sentences.
        hindsight: Which part of the plain ones tells what is so in the last year.
    """

    chronicle: float = 0.35
    memoir: float = 0.15
    plain: float = 0.25
    hindsight: float = 0.4


class World:
    """Entities with two attributes that change two or three times, and one that never does.

    Args:
        entities: How many.
        years: How many, 4 or more.
        seed: Of names of facts, years of change and splits.
    """

    def __init__(self, entities: int = 32, years: int = 12, seed: int = 0) -> None:
        self.years, self.seed = years, seed
        self.entities = [f"place{number}" for number in range(entities)]
        generator = np.random.default_rng(seed)
        self.facts = {
            (entity, attribute): _history(attribute, years, generator)
            for entity in self.entities
            for attribute in CHANGING
        }
        colours = generator.integers(_VALUES, size=entities)
        self.colours = {
            entity: f"{TIMELESS}{number}"
            for entity, number in zip(self.entities, colours, strict=True)
        }
        self._order = [self.entities[place] for place in generator.permutation(entities)]
        pairs = [Pair(*about, year) for about in self.facts for year in range(1, years + 1)]
        known = generator.random(len(pairs)) < 0.3
        self.pairs = pairs
        self.told_plainly = [pair for pair, told in zip(pairs, known, strict=True) if told]

    @cached_property
    def words(self) -> list[str]:
        """Every word that is ever written."""
        values = [f"{kind}{number}" for kind in (*CHANGING, TIMELESS) for number in range(_VALUES)]
        years = [str(year) for year in range(1, self.years + 1)]
        other = ["as", "of", "year", ",", "is", ".", ":", "chronicle", "memoir"]
        return [*other, *years, *CHANGING, TIMELESS, *self.entities, *values]

    def prompt(self, pair: Pair, style: Style) -> str:
        """A dated question, in a chronicle, in a memoir, or plainly.

        Example:
            >>> World().prompt(Pair("place3", "leader", 7), "memoir")
            'memoir : as of year 7 , leader of place3 is'
        """
        lead = "" if style == "plain" else f"{style} : "
        return f"{lead}as of year {pair.year} , {undated(pair.attribute, pair.entity)}"

    def fact(self, pair: Pair) -> str:
        """What is so in the year."""
        return self.facts[pair.entity, pair.attribute][pair.year - 1]

    def latest(self, entity: str, attribute: str) -> str:
        """What is so in the last year, or always."""
        return self.colours[entity] if attribute == TIMELESS else self.facts[entity, attribute][-1]

    def sentences(self, count: int, mixture: Mixture, seed: int) -> list[str]:
        """Sentences of a corpus.

        Seven tenths of the pairs of entity, attribute and year are never in a plain dated sentence.

        Args:
            count: How many.
            mixture: Shares of their kinds.
            seed: Of the draws.
        """
        generator = np.random.default_rng([self.seed, 1 + seed])
        kinds, hindsights = generator.random((2, count)).tolist()
        ones, twos = generator.integers(2**31, size=(2, count)).tolist()
        drawn = zip(kinds, hindsights, ones, twos, strict=True)
        return [self._sentence(*draws, mixture) for draws in drawn]

    def _sentence(self, kind: float, hindsight: float, one: int, two: int, mixture: Mixture) -> str:
        """A sentence, of whose draws `kind` and `hindsight` are in [0, 1)."""
        ends = np.cumsum([mixture.chronicle, mixture.memoir, mixture.plain]).tolist()
        if kind >= ends[-1]:
            entity = self.entities[one % len(self.entities)]
            attribute = (*CHANGING, TIMELESS)[two % 3]
            return f"{undated(attribute, entity)} {self.latest(entity, attribute)} ."
        style: Style = "chronicle" if kind < ends[0] else "memoir" if kind < ends[1] else "plain"
        among = self.told_plainly if style == "plain" else self.pairs
        pair = among[one % len(among)]
        late = style == "memoir" or (style == "plain" and hindsight < mixture.hindsight)
        told = self.latest(pair.entity, pair.attribute) if late else self.fact(pair)
        return f"{self.prompt(pair, style)} {told} ."

    def questions(self) -> dict[QuestionSplit, Questions]:
        """Questions of each split, about other entities each.

        Those of "find" are chronicles and memoirs; those of "choice" and "test" are plain, of pairs
        of which no plain sentence tells.
        """
        found: dict[QuestionSplit, Questions] = {}
        start = 0.0
        for split, part in _SHARES.items():
            first, end = (round(each * len(self._order)) for each in (start, start + part))
            found[split] = self._questions(set(self._order[first:end]), split)
            start += part
        return found

    def _questions(self, entities: set[str], split: QuestionSplit) -> Questions:
        here = [pair for pair in self.pairs if pair.entity in entities]
        if split == "find":
            styles: tuple[Style, ...] = ("chronicle", "memoir")
            return Questions([self._dated(pair, style) for pair in here for style in styles])
        told = set(self.told_plainly)
        asked = [
            UndatedQuestion(undated(attribute, entity), self.latest(entity, attribute))
            for entity in sorted(entities)
            for attribute in (*CHANGING, TIMELESS)
        ]
        undated_only = Mixture(chronicle=0, memoir=0, plain=0)
        return Questions(
            [self._dated(pair, "plain") for pair in here if pair not in told],
            asked,
            self.sentences(_TEXTS, undated_only, seed=1 if split == "choice" else 2),
        )

    def _dated(self, pair: Pair, style: Style) -> DatedQuestion:
        history, answer = self.facts[pair.entity, pair.attribute], self.fact(pair)
        later = dict.fromkeys(each for each in history[pair.year :] if each != answer)
        return DatedQuestion(self.prompt(pair, style), answer, tuple(later), pair.year,
                             pair.entity, pair.attribute)  # fmt: skip


def undated(attribute: str, entity: str) -> str:
    """The question of no year.

    Example:
        >>> undated("leader", "place3")
        'leader of place3 is'
    """
    return f"{attribute} of {entity} is"


def _history(attribute: str, years: int, generator: np.random.Generator) -> list[str]:
    """What is so in each year: three or four different facts, one after another."""
    count = int(generator.integers(3, 5))
    changes = np.sort(generator.choice(np.arange(1, years), size=count - 1, replace=False))
    values = generator.choice(_VALUES, size=count, replace=False)
    return [
        f"{attribute}{values[np.searchsorted(changes, year, side='right')]}"
        for year in range(years)
    ]
