"""A grid of autoencoders over one data set: trained stacked, compared, lambda chosen."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.runs.sweep.choice import Choice, choose_weight, paired_differences
    from lightsae.runs.sweep.sweep_file import Result, SweepFile
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Choice": ".choice",
            "Result": ".sweep_file",
            "SweepFile": ".sweep_file",
            "choose_weight": ".choice",
            "paired_differences": ".choice",
        },
    )

__all__ = ["Choice", "Result", "SweepFile", "choose_weight", "paired_differences"]
