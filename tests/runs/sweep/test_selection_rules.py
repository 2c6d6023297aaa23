"""A grid over k under each selection rule."""

from pathlib import Path
from typing import Any

import pytest

from lightsae.cli import main
from lightsae.runs.metrics_file import MetricsFile
from lightsae.sae import SparseAutoencoder

from .helpers import write_sweep

RULES: dict[str, dict[str, Any]] = {
    "BatchTopK": {"k": 3},
    "JumpReLU": {"k": 3},
    "BankTopK": {"keep": 1, "bank": 12},
    "GroupMax": {"k": 3},
}


@pytest.mark.parametrize("rule", RULES)
def test_members_have_the_rule_with_their_k(rule: str, shards: Path, tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path / "sweep.yaml", shards, {"k": [2, 4]}, trainer__max_epochs=1,
        model__init_args__selection={"class_path": rule, "init_args": RULES[rule]},
        model__init_args__regularizer=None,
    )  # fmt: skip
    assert main(["sweep", "--config", str(path), "--run_dir", str(tmp_path / "sweep")]) == 0
    runs = sorted((tmp_path / "sweep" / "members").iterdir())
    found = [SparseAutoencoder.load(run / "sae").selection for run in runs]
    assert [(type(each).__name__, each.k) for each in found] == [(rule, 2), (rule, 4)]
    learns = rule in ("BatchTopK", "JumpReLU")
    for run in runs:
        rows = MetricsFile(run / "metrics.jsonl").rows()
        assert any("train/threshold" in row for row in rows) == learns


def test_without_a_list_k_is_that_of_the_banks(shards: Path, tmp_path: Path) -> None:
    banks = {"class_path": "BankTopK", "init_args": {"keep": 1, "bank": 12}}
    path = write_sweep(
        tmp_path / "sweep.yaml", shards, {"d_sae": [24, 36]}, trainer__max_epochs=1,
        model__init_args__selection=banks, model__init_args__regularizer=None,
    )  # fmt: skip
    assert main(["sweep", "--config", str(path), "--run_dir", str(tmp_path / "sweep")]) == 0
    names = sorted(run.name for run in (tmp_path / "sweep" / "members").iterdir())
    assert names == ["k2-d_sae24-baseline-lr0.01-seed3", "k3-d_sae36-baseline-lr0.01-seed3"]
