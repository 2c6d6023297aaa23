"""Contrast pairs: questions answered time-aware beside questions answered by later facts."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lightsae.errors import LightsaeError
from lightsae.interventions.look_ahead.leak_rate import AnswerKind
from lightsae.interventions.look_ahead.questions import DatedQuestion


class ContrastPair(NamedTuple):
    """Two questions about the same attribute in the same year.

    Attributes:
        aware: One whose answer was as of then.
        ahead: One whose answer was a later fact.
    """

    aware: DatedQuestion
    ahead: DatedQuestion


def contrast_pairs(
    questions: Sequence[DatedQuestion], kinds: Sequence[AnswerKind], *, seed: int = 0
) -> list[ContrastPair]:
    """Pair questions by what the model answered.

    Ours: earlier years have more later facts, and leak more. Both of a pair are of one year and
    attribute, so that latents of these do not tell them apart.

    Args:
        questions: Dated questions.
        kinds: Of each what the model's answer was.
        seed: Of the pairing.

    Returns:
        As many pairs as there are, each question once.

    Raises:
        LightsaeError: If there are fewer than two.

    Example:
        >>> asked = [DatedQuestion(f"As of 9 {x} is", "a", ("b",), 9, entity=x) for x in "pqrst"]
        >>> kinds = ["later", "as of then", "other", "later", "as of then"]
        >>> pairs = contrast_pairs(asked, kinds)
        >>> sorted(pair.aware.entity for pair in pairs), sorted(p.ahead.entity for p in pairs)
        (['q', 't'], ['p', 's'])
    """
    groups: dict[tuple[int, str], dict[str, list[DatedQuestion]]]
    groups = defaultdict(lambda: {"as of then": [], "later": [], "other": []})
    for question, kind in zip(questions, kinds, strict=True):
        groups[question.year, question.attribute][kind].append(question)
    generator = np.random.default_rng(seed)
    pairs = []
    for _, group in sorted(groups.items()):
        aware, ahead = (
            [group[kind][place] for place in generator.permutation(len(group[kind]))]
            for kind in ("as of then", "later")
        )
        pairs += [ContrastPair(*both) for both in zip(aware, ahead, strict=False)]
    if len(pairs) < 2:
        counts = {kind: kinds.count(kind) for kind in ("as of then", "later")}
        raise LightsaeError(
            f"questions of the split find: {len(pairs)} pairs of the same year and attribute, one "
            f"answered as of then and one by a later fact, expected 2 or more; answers are {counts}"
        )
    return pairs
