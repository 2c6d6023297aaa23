"""Tables, figures and the page of finished runs, and a gallery while they train."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.report.figures.chart import Chart, Series, by_setting, draw_chart
    from lightsae.report.figures.evaluation_charts import (
        firing_density,
        k_robustness,
        ms_against_frequency,
        ms_histogram,
        rank_profile,
        truncated_probe,
    )
    from lightsae.report.figures.gallery import top_images_gallery
    from lightsae.report.figures.pareto import pareto_figure
    from lightsae.report.figures.sweep_charts import SweepPoint, lambda_sweep, sweep_point
    from lightsae.report.figures.task_vector_charts import injection_charts
    from lightsae.report.figures.training_charts import training_curves
    from lightsae.report.gallery_callback import GalleryCallback
    from lightsae.report.page.build import ReportOptions, build_report
    from lightsae.report.sweep_summary import sweep_table
    from lightsae.report.table import (
        PairedDifference,
        RunResult,
        comparison_table,
        paired_difference,
    )
    from lightsae.report.task_vector_summary import task_vector_table
else:
    _CHARTS = ".figures.evaluation_charts"
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Chart": ".figures.chart",
            "GalleryCallback": ".gallery_callback",
            "PairedDifference": ".table",
            "ReportOptions": ".page.build",
            "RunResult": ".table",
            "Series": ".figures.chart",
            "SweepPoint": ".figures.sweep_charts",
            "build_report": ".page.build",
            "by_setting": ".figures.chart",
            "comparison_table": ".table",
            "draw_chart": ".figures.chart",
            "firing_density": _CHARTS,
            "injection_charts": ".figures.task_vector_charts",
            "k_robustness": _CHARTS,
            "lambda_sweep": ".figures.sweep_charts",
            "ms_against_frequency": _CHARTS,
            "ms_histogram": _CHARTS,
            "paired_difference": ".table",
            "pareto_figure": ".figures.pareto",
            "rank_profile": _CHARTS,
            "sweep_point": ".figures.sweep_charts",
            "sweep_table": ".sweep_summary",
            "task_vector_table": ".task_vector_summary",
            "top_images_gallery": ".figures.gallery",
            "training_curves": ".figures.training_charts",
            "truncated_probe": _CHARTS,
        },
    )

__all__ = [
    "Chart",
    "GalleryCallback",
    "PairedDifference",
    "ReportOptions",
    "RunResult",
    "Series",
    "SweepPoint",
    "build_report",
    "by_setting",
    "comparison_table",
    "draw_chart",
    "firing_density",
    "injection_charts",
    "k_robustness",
    "lambda_sweep",
    "ms_against_frequency",
    "ms_histogram",
    "paired_difference",
    "pareto_figure",
    "rank_profile",
    "sweep_point",
    "sweep_table",
    "task_vector_table",
    "top_images_gallery",
    "training_curves",
    "truncated_probe",
]
