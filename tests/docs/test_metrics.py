"""docs/metrics.md: its code runs from top to bottom and its table has every metric."""

import re
from pathlib import Path
from typing import Any

import torch

import lightsae.metrics
from tests.docs.test_python import blocks

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_code_of_the_page_runs() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(PAGE)):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    assert names["paired"].both == 64
    assert names["curve"].top1.shape == (3,)
    assert (names["curve"].top1 > 0.5).all()
    assert names["moran"].compute().incomplete == 0
    assert torch.isfinite(names["moran"].compute().mean)
    assert names["profile"].compute().rows == 100


def test_the_table_names_every_metric() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE.read_text()))
    results = {
        "Coherence", "DownstreamLosses", "FiringDensities", "Interval", "KRobustnessCurve",
        "KSparseProbeCurve", "LatentDifferences", "MonosemanticityScores", "MoransIScores",
        "PooledCodes", "Pooling", "PurityScores", "RankDifferences", "RankProfileCurve",
        "TopActivations", "TruncatedProbeCurve", "UniquenessScores",
    }  # fmt: skip
    assert set(lightsae.metrics.__all__) - results <= named
