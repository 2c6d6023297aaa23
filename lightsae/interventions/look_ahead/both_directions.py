"""Steering by time-aware and by look-ahead latents, beside each other; the conclusion by rule."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

from lightsae.interventions.look_ahead.task import Direction, LookAheadTask
from lightsae.interventions.steering.options import SteeringOptions
from lightsae.interventions.steering.result import Outcome, SteeringResult
from lightsae.interventions.steering.steering_run import steer

_TOLD: dict[Outcome, str] = {
    "works": "works",
    "controls": "helps no more than a control",
    "guards": "helps at too much damage",
    "nothing": "does nothing",
    "no point": "has no point that keeps the guards",
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
    """Both verdicts, and a sentence beside what the paper found, by rule from the outcomes.

    Args:
        results: Of both directions.

    Returns:
        Three lines.

    Example:
        >>> amplify = SteeringResult("leak rate", True, {}, outcome="works", verdict="Works.")
        >>> suppress = SteeringResult("leak rate", True, {}, outcome="nothing", verdict="Nothing.")
        >>> print(conclusion({"amplify": amplify, "suppress": suppress}))
        Amplifying time-aware latents. Works.
        Suppressing look-ahead latents. Nothing.
        In arXiv 2606.27199 amplifying works and suppressing does nothing; here amplifying works \
and suppressing does nothing.
    """
    amplify, suppress = results["amplify"], results["suppress"]
    return (
        f"Amplifying time-aware latents. {amplify.verdict}\n"
        f"Suppressing look-ahead latents. {suppress.verdict}\n"
        "In arXiv 2606.27199 amplifying works and suppressing does nothing; here amplifying "
        f"{_TOLD[amplify.outcome]} and suppressing {_TOLD[suppress.outcome]}."
    )
