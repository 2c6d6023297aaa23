"""Charts of an experiment on a task vector: right answers by number of layers."""

from lightsae.interventions.task_vectors.result import TaskVectorResult
from lightsae.report.figures.chart import Chart, Series


def injection_charts(result: TaskVectorResult) -> list[Chart]:
    """Right answers by number of layers that hold the raw vector, a line for each rule.

    Args:
        result: The experiment; 0 layers are its base.

    Returns:
        A chart of each set of samples, the task first.
    """
    base = result.arms[0]
    charts = []
    for samples in (result.task, *result.elsewhere):
        series = [
            Series(
                rule,
                [0.0, *(float(number) for number in arms)],
                [100 * base.share(samples), *(100 * arm.share(samples) for arm in arms.values())],
                colour,
            )
            for colour, (rule, arms) in enumerate(result.curves.items(), start=1)
        ]
        charts.append(
            Chart(
                f"task_vectors/{samples}",
                f"Raw task vector by layers ({samples})",
                "layers with the task vector",
                "right answers, %",
                series,
                note="Random: mean over sets of layers.",
                marks=[float(result.n_layers)],
            )
        )
    return charts
