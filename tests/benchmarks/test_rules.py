"""Selection rules side by side: the same start and batches for all, and tables that pair them."""

import csv
from pathlib import Path

import pytest
import torch

from .test_paper import write_pair

RULES = ("TopK", "BatchTopK", "JumpReLU", "BankTopK", "GroupMax", "Matryoshka TopK",
         "Matryoshka BatchTopK", "MultiTopK")  # fmt: skip


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def small(beside, rule: str, **changed):
    sizes = {"k": 4, "d_sae": 32, "epochs": 1, "batch_size": 64} | changed
    return beside("replication.training").Setting(rule=rule, **sizes)


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_rules_are_paired_and_what_is_kept_is_not_trained_again(beside, run_here, tmp_path) -> None:
    x, e = write_pair(tmp_path)
    words = ["--out", tmp_path / "out", "--set", "made", x, e, "classes", "--k", 4, "--d_sae", 32,
             "--rules", "TopK", "BatchTopK", "--epochs", 1, "--batch_size", 64, "--seeds", 2,
             "--rounds", 2, "--results", tmp_path / "results"]  # fmt: skip
    rules = beside("rules")
    assert run_here(rules, *words) == 0
    runs, tables, times = (
        rows_of(tmp_path / "results" / f"rules_{name}.csv")
        for name in ("runs", "tables", "step_times")
    )
    assert len(runs) == 2 * 3 * 2 * 2, "rules, variants, seeds and splits"
    assert {row["l0"] for row in runs if row["rule"] == "TopK"} == {"4"}
    r2 = {
        (row["rule"], row["seed"]): float(row["r2"])
        for row in runs
        if row["split"] == "test" and row["variant"] == "baseline"
    }
    [less] = [
        row
        for row in tables
        if row["split"] == "test" and row["rule"] == "BatchTopK" and row["metric"] == "R2"
        and row["variant"] == "baseline" and row["of"] == "less the baseline's"
    ]  # fmt: skip
    paired = [r2["BatchTopK", seed] - r2["TopK", seed] for seed in "01"]
    assert float(less["mean"]) == pytest.approx(sum(paired) / 2, abs=1e-4)
    assert less["baseline"] == "TopK without a regularizer"
    under_its_own_rule = {row["baseline"] for row in tables if row["variant"] == "Reg 1"}
    assert under_its_own_rule == {f"{rule} without a regularizer" for rule in RULES[:2]}
    assert len(times) == 6 and times[0]["median"] == "1"
    assert tuple(beside("replication.rules").RULES) == RULES
    assert (tmp_path / "results" / "rules_tables.md").read_text().count("BatchTopK") == 3
    before = written(tmp_path / "out")
    assert run_here(rules, *words) == 0
    assert written(tmp_path / "out") == before


@pytest.mark.parametrize("rule", RULES)
def test_rules_start_from_the_same_weights(rule: str, beside) -> None:
    training = beside("replication.training")
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))
    first, other = (
        training.train(training.Fit(seed=3), small(beside, name, learning_rate=0.0), x)
        for name in ("TopK", rule)
    )
    torch.testing.assert_close(other.W_enc, first.W_enc)
    assert other.selection.k == first.selection.k == 4


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_learns_and_is_scored_as_on_new_inputs(rule: str, beside) -> None:
    training, scoring = beside("replication.training"), beside("replication.scoring")
    x = torch.randn(256, 12, generator=torch.Generator().manual_seed(0))
    rows = beside("replication.sets").Rows(x, x, None)
    fit, setting = training.Fit("Reg 2", 1e-3), small(beside, rule, epochs=20)
    sae = training.train(fit, setting, x)
    untrained = training.train(fit, small(beside, rule, learning_rate=0.0), x)
    score = scoring.score(sae, rows)
    assert score.r2 > scoring.score(untrained, rows).r2 + 0.1
    assert score.l0 == pytest.approx(float((sae.encode(x).values > 0).sum() / len(x)))


def test_a_step_is_measured_by_the_first_of_its_round(beside) -> None:
    times = beside("replication.step_times")
    seconds = torch.tensor([[1.0, 2.0], [2.0, 4.0], [4.0, 12.0]], dtype=torch.float64)
    first, second = times._summaries(seconds)
    assert first == (1.0, 1.0, 1.0, 2000.0)
    assert second == (2.0, 2.0, 2.5, 4000.0)


def test_timing_leaves_the_weights_as_they_are(beside) -> None:
    training, times = beside("replication.training"), beside("replication.step_times")
    x = torch.randn(128, 12, generator=torch.Generator().manual_seed(0))
    setting, fit = small(beside, "TopK"), training.Fit("Reg 1", 1e-3)
    sae = training.train(fit, setting, x)
    before = sae.W_enc.clone()
    found = times.step_times({"one": times.Trained(sae, fit, setting)}, x, rounds=2)
    assert torch.equal(sae.W_enc, before) and found["one"].milliseconds > 0
