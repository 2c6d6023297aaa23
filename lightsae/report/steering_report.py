"""What `lightsae steer` leaves beside steering.json: a table on the terminal, figures, a page."""

from pathlib import Path

from rich.console import Console

from lightsae.interventions.steering import SteeringResult
from lightsae.interventions.steering.result import FILE
from lightsae.report.figures.chart import draw_chart
from lightsae.report.figures.steering_charts import steering_charts
from lightsae.report.page.build import ReportOptions, build_report
from lightsae.report.steering_summary import explained_choice, steering_table


def write_steering_report(folder: Path, console: Console) -> SteeringResult:
    """Print table and verdict of a steering; write figures/*.png and report.html beside it.

    Args:
        folder: A steering that is done.
        console: Where to print.

    Returns:
        The steering.

    Raises:
        LightsaeError: If steering.json is not what `steer` writes.
        MissingExtraError: If matplotlib or Jinja2 is not installed.
    """
    result = SteeringResult.load(folder / FILE)
    console.print(steering_table(result))
    console.print(explained_choice(result), style="dim", markup=False, highlight=False)
    console.print(f"\n{result.verdict}", style="bold", markup=False, highlight=False)
    for chart in steering_charts(result):
        draw_chart(chart, folder / "figures" / f"{chart.name.replace('/', '-')}.png")
    build_report(ReportOptions(runs=[folder], out=folder / "report.html"))
    return result
