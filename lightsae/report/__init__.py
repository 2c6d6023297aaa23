"""Tables and figures of finished runs."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.report.gallery import top_images_gallery
    from lightsae.report.pareto import pareto_figure
    from lightsae.report.sweep_table import sweep_table
    from lightsae.report.table import (
        PairedDifference,
        RunResult,
        comparison_table,
        paired_difference,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "PairedDifference": ".table",
            "RunResult": ".table",
            "comparison_table": ".table",
            "paired_difference": ".table",
            "pareto_figure": ".pareto",
            "sweep_table": ".sweep_table",
            "top_images_gallery": ".gallery",
        },
    )

__all__ = [
    "PairedDifference",
    "RunResult",
    "comparison_table",
    "paired_difference",
    "pareto_figure",
    "sweep_table",
    "top_images_gallery",
]
