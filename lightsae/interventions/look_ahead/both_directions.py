"""Steering by time-aware and by look-ahead latents, beside each other; the conclusion by rule."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

from lightsae.interventions.look_ahead.task import Direction, LookAheadTask
from lightsae.interventions.steering.options import SteeringOptions
from lightsae.interventions.steering.result import SteeringResult
from lightsae.interventions.steering.steering_run import steer

_NAMES: dict[Direction, str] = {
    "amplify": "amplifying time-aware latents",
    "suppress": "suppressing look-ahead latents",
}


def steer_both(
    task: LookAheadTask, folder: Path, options: SteeringOptions
) -> dict[Direction, SteeringResult]:
    """Steer by the time-aware latents, then by the look-ahead ones, with the same grid.

    Args:
        task: The task, in either direction.
        folder: Gets `amplify` and `suppress`; both go on after a stop, see `steer`.
        options: The grid and its controls; label 0, time-aware answers, is what is steered to.

    Returns:
        Of each direction what it came to.
    """
    toward = replace(options, toward=0)
    results: dict[Direction, SteeringResult] = {}
    for direction in get_args(Direction):
        aimed = task.toward(direction)
        results[direction] = steer(aimed, folder / direction, toward, about=aimed.about())
    return results


def conclusion(results: Mapping[Direction, SteeringResult]) -> str:
    """One sentence for each direction and one on both, by rule from the outcomes.

    The paper (arXiv 2606.27199) found that amplifying works and suppressing has no effect; the last
    sentence says whether this was found here: "works" and "nothing" or "no point".

    Args:
        results: Of both directions.
    """
    told = [f"{_NAMES[direction].capitalize()}: {result.verdict}" for direction, result
            in results.items()]  # fmt: skip
    amplify, suppress = results["amplify"].outcome, results["suppress"].outcome
    if amplify == "works" and suppress in ("nothing", "no point"):
        both = "As in arXiv 2606.27199, only amplifying works."
    elif amplify == "works" and suppress == "works":
        both = "Unlike arXiv 2606.27199, both work."
    elif suppress == "works":
        both = "Unlike arXiv 2606.27199, only suppressing works."
    elif amplify == "works":
        both = (
            "As in arXiv 2606.27199 amplifying works; suppressing lowers the leak rate too, but no "
            "better than its controls or at too much damage."
        )
    else:
        both = "Unlike arXiv 2606.27199, neither works."
    return "\n".join([*told, both])
