"""Tables and figures of finished runs."""

from lightsae.report.gallery import top_images_gallery
from lightsae.report.pareto import pareto_figure
from lightsae.report.table import PairedDifference, RunResult, comparison_table, paired_difference

__all__ = [
    "PairedDifference",
    "RunResult",
    "comparison_table",
    "paired_difference",
    "pareto_figure",
    "top_images_gallery",
]
