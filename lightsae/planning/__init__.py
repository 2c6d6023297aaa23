"""What a run would need, before it is sent: memory, time and traffic of a cluster."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.planning.calibration import Calibration, load_calibration
    from lightsae.planning.measurement import calibrate
    from lightsae.planning.plan import make_plan
    from lightsae.planning.result import Plan
    from lightsae.planning.shape import Shape, shape_of
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Calibration": ".calibration",
            "Plan": ".result",
            "Shape": ".shape",
            "calibrate": ".measurement",
            "load_calibration": ".calibration",
            "make_plan": ".plan",
            "shape_of": ".shape",
        },
    )

__all__ = [
    "Calibration",
    "Plan",
    "Shape",
    "calibrate",
    "load_calibration",
    "make_plan",
    "shape_of",
]
