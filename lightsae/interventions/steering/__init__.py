"""Steering reports: a grid of strengths and numbers of latents, beside controls."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.interventions.steering.options import SteeringOptions
    from lightsae.interventions.steering.result import Comparison, Estimate, Point, SteeringResult
    from lightsae.interventions.steering.steering_run import steer
    from lightsae.interventions.steering.task import (
        Examples,
        GuardLimit,
        Measured,
        SteeringTask,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Comparison": ".result",
            "Estimate": ".result",
            "Examples": ".task",
            "GuardLimit": ".task",
            "Measured": ".task",
            "Point": ".result",
            "SteeringOptions": ".options",
            "SteeringResult": ".result",
            "SteeringTask": ".task",
            "steer": ".steering_run",
        },
    )

__all__ = [
    "Comparison",
    "Estimate",
    "Examples",
    "GuardLimit",
    "Measured",
    "Point",
    "SteeringOptions",
    "SteeringResult",
    "SteeringTask",
    "steer",
]
