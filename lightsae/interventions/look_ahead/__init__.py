"""Look-ahead bias: dated questions, the leak rate, and steering against it."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.interventions.look_ahead.both_directions import conclusion, steer_both
    from lightsae.interventions.look_ahead.leak_rate import answer_kind
    from lightsae.interventions.look_ahead.matched_pairs import ContrastPair, contrast_pairs
    from lightsae.interventions.look_ahead.questions import (
        DatedQuestion,
        Questions,
        UndatedQuestion,
        read_questions,
        write_questions,
    )
    from lightsae.interventions.look_ahead.task import LookAheadTask
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ContrastPair": ".matched_pairs",
            "DatedQuestion": ".questions",
            "LookAheadTask": ".task",
            "Questions": ".questions",
            "UndatedQuestion": ".questions",
            "answer_kind": ".leak_rate",
            "conclusion": ".both_directions",
            "contrast_pairs": ".matched_pairs",
            "read_questions": ".questions",
            "steer_both": ".both_directions",
            "write_questions": ".questions",
        },
    )

__all__ = [
    "ContrastPair",
    "DatedQuestion",
    "LookAheadTask",
    "Questions",
    "UndatedQuestion",
    "answer_kind",
    "conclusion",
    "contrast_pairs",
    "read_questions",
    "steer_both",
    "write_questions",
]
