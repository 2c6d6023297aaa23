"""What `lightsae compare` shows, and leaves beside stability.json."""

from rich.console import Console

from lightsae.evaluation.comparison.comparison_table import comparison_table
from lightsae.report.figures.chart import draw_chart
from lightsae.report.figures.stability_charts import stability_charts
from lightsae.report.stability_summary import stability_table
from lightsae.runs.side_by_side.compared import Compared


def tell_comparison(compared: Compared, console: Console) -> None:
    """Print what came out; write figures/*.png beside each stability.json.

    Args:
        compared: What `compare_command` gives.
        console: Where to print.

    Raises:
        MissingExtraError: If there are figures to write and matplotlib is not installed.
    """
    for comparison in compared.comparisons:
        console.print(comparison_table(comparison))
    for name, stability in compared.stabilities.items():
        console.print(stability_table(stability, name))
        if name in compared.folders:
            figures = compared.folders[name] / "figures"
            for chart in stability_charts(stability):
                draw_chart(chart, figures / f"{chart.name.replace('/', '-')}.png")
    for note in compared.notes:
        console.print(note, style="dim", markup=False, highlight=False)
    if compared.out is not None:
        console.print(f"{compared.out}: comparison.json", markup=False, highlight=False,
                      soft_wrap=True)  # fmt: skip
