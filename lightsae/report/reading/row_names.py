"""Names of the settings of a report."""

from collections import Counter
from collections.abc import Sequence

from lightsae.evaluation.comparison.run_groups import regularizer_names, setting_names
from lightsae.report.reading.run_inputs import RunInputs


def row_names(runs: Sequence[RunInputs], groups: Sequence[Sequence[int]]) -> list[str]:
    """Of each group its regularizer and what else tells it from others; a lone run has its own.

    Args:
        runs: The runs.
        groups: Places of the runs of each setting.
    """
    firsts = [runs[places[0]] for places in groups]
    if len(groups) == len(runs):
        return [run.name for run in firsts]
    parts = zip(regularizer_names(firsts), setting_names(firsts), strict=True)
    told = [", ".join(filter(None, each)) for each in parts]
    count = Counter((name, run.weight) for name, run in zip(told, firsts, strict=True))
    return [
        run.name if count[name, run.weight] > 1 else name
        for name, run in zip(told, firsts, strict=True)
    ]
