"""Tables and figures of finished runs."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.report.figures.gallery import top_images_gallery
    from lightsae.report.figures.pareto import pareto_figure
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
            "pareto_figure": ".figures.pareto",
            "top_images_gallery": ".figures.gallery",
        },
    )

__all__ = [
    "PairedDifference",
    "RunResult",
    "comparison_table",
    "paired_difference",
    "pareto_figure",
    "top_images_gallery",
]
