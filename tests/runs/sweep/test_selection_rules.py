"""A grid over k under the rules beside Top-k."""

from pathlib import Path
from typing import Any

import pytest

from lightsae.cli import main
from lightsae.runs.metrics_file import MetricsFile
from lightsae.sae import SparseAutoencoder

from .helpers import write_sweep

pytestmark = pytest.mark.slow

RULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "BatchTopK": ({"k": 3}, {"k": [2, 4]}),
    "JumpReLU": ({"k": 3}, {"k": [2, 4]}),
    "BankTopK": ({"keep": 1, "bank": 12}, {"k": [2, 4]}),
    "BankTopK without a list": ({"keep": 1, "bank": 12}, {"d_sae": [24, 48]}),
}


@pytest.mark.parametrize("case", RULES)
def test_members_have_the_rule_with_their_k(case: str, shards: Path, tmp_path: Path) -> None:
    rule, (settings, grid) = case.split()[0], RULES[case]
    path = write_sweep(
        tmp_path / "sweep.yaml", shards, grid, trainer__max_epochs=1,
        model__init_args__selection={"class_path": rule, "init_args": settings},
        model__init_args__regularizer=None,
    )  # fmt: skip
    assert main(["sweep", "--config", str(path), "--run_dir", str(tmp_path / "sweep")]) == 0
    runs = sorted((tmp_path / "sweep" / "members").iterdir())
    found = [SparseAutoencoder.load(run / "sae").selection for run in runs]
    assert [(type(each).__name__, each.k) for each in found] == [(rule, 2), (rule, 4)]
    assert [run.name[:2] for run in runs] == ["k2", "k4"]
    for run in runs:
        rows = MetricsFile(run / "metrics.jsonl").rows()
        learns = rule in ("BatchTopK", "JumpReLU")
        assert any("train/threshold" in row for row in rows) == learns
