"""The paper's tables on a small set: lambda by its rule, paired intervals, nothing twice."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightsae.activations import Manifest, ShardWriter

from .conftest import BENCHMARKS


def write_pair(folder: Path, rows: int = 300) -> tuple[Path, Path]:
    """Rows made of class directions, and another model's embeddings in another order."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(rows) % 5
    directions = torch.randn(5, 12, generator=generator)
    x = directions[label] + 0.4 * torch.randn(rows, 12, generator=generator)
    e = torch.eye(5)[label] + 0.1 * torch.rand(rows, 5, generator=generator)
    order = torch.randperm(rows, generator=generator)
    with ShardWriter(folder / "x", Manifest(d_in=12, dtype="float32", has_labels=True)) as writer:
        writer.write(x, torch.arange(rows), label=label)
    with ShardWriter(folder / "e", Manifest(d_in=5, dtype="float32")) as writer:
        writer.write(e[order], order)
    return folder / "x", folder / "e"


def run(folder: Path, shards: tuple[Path, Path]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / "paper.py", "--out", folder / "out", "--sets", "made",
               *shards, "classes", "--k", "3", "--d_sae", "24", "--epochs", "6", "--batch_size",
               "64", "--seeds", "2", "--detailed", "1", "--probe_rows", "100", "--results",
               folder / "results"]  # fmt: skip
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_table_and_figure_is_made_and_what_is_kept_is_not_trained_again(tmp_path):
    shards = write_pair(tmp_path)
    done = run(tmp_path, shards)
    assert done.returncode == 0, done.stderr
    runs, tables, curves = (
        rows_of(tmp_path / "results" / f"paper_{name}.csv") for name in ("runs", "tables", "curves")
    )
    tested = [row for row in runs if row["split"] == "test"]
    assert {row["variant"] for row in tested} == {"baseline", "Reg 1", "Reg 2"}
    assert {row["seed"] for row in tested} == {"0", "1"}
    assert all(0 < float(row["r2"]) < 1 for row in tested)
    assert any(row["probe_auc"] and row["purity_binary"] for row in tested)
    differences = [row for row in tables if row["of"] == "less the baseline's"]
    assert {row["masked"] for row in differences} == {"True", "False"}
    several = [row for row in tables if row["seeds"] == "2"]
    assert all(float(row["low"]) <= float(row["mean"]) <= float(row["high"]) for row in several)
    assert {row["masked"] for row in several} == {"True"}, "the mask ablation is over one seed"
    assert {row["curve"] for row in curves} == {"rank profile", "NMSE by k", "R2 by k"}
    assert (tmp_path / "out" / "paper-made-k-3.png").stat().st_size > 1000
    text = (tmp_path / "results" / "paper_tables.md").read_text()
    assert all(f"Table {number}" in text for number in range(1, 5)) and "Wanted" in text
    [kept] = (tmp_path / "out" / "saes" / "made").iterdir()
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*") if path.is_file()}
    assert run(tmp_path, shards).returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in kept.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "layer"), [("convnext", "stages.2"), ("mixer", "norm")])
def test_the_networks_of_digits_have_the_layers_that_are_extracted(beside, name, layer) -> None:
    pytest.importorskip("timm")
    module, seen = getattr(beside("replication.sources"), name)(), []
    module.get_submodule(layer).register_forward_hook(lambda *call: seen.append(call[2].shape))
    assert module.eval()(torch.zeros(2, 1, 16, 16)).shape == (2, 10)
    [shape] = seen
    assert tuple(shape) in {(2, 64, 4, 4), (2, 16, 64)}


class Kept:
    """Workers that know the validation R2 of every fit."""

    def __init__(self, beside, r2) -> None:
        self._fits, self._r2 = beside("replication.fits"), r2
        self._score = beside("replication.scoring").Score
        self.asked = []

    def train(self, fits):
        found = {}
        for fit in fits:
            self.asked.append(fit)
            score = self._score(self._r2(fit), 0.5, torch.zeros(2), 0, 0, 3.0)
            found[fit] = self._fits.Scored(fit, {"validation": score})
        return found


def test_lambda_is_the_largest_that_keeps_r2_in_the_mean_over_seeds(beside) -> None:
    lost = {1.0: 0.01, 2.0: 0.0, 3.0: -0.001, 4.0: 1.0}

    def r2(fit) -> float:
        noise = 0.1 * fit.seed
        return 0.8 + noise + lost.get(fit.weight, 0.0)

    workers = Kept(beside, r2)
    choice = beside("replication.choice").choose("Reg 1", range(3), workers, (1.0, 2.0, 3.0, 4.0))
    assert choice.weight == 2.0 and choice.keeps_r2
    assert max(fit.weight for fit in workers.asked) == 3.0, "the search ends where R2 is lost"
    choice = beside("replication.choice").choose("Reg 1", range(3), workers, (3.0, 4.0))
    assert choice.weight == 3.0 and not choice.keeps_r2 and "none keeps R2" in str(choice)


def test_a_loss_within_chance_does_not_end_the_search(beside) -> None:
    lost = {1.0: (-0.02, 0.01, 0.005), 2.0: (0.0, 0.02, -0.01), 3.0: (-0.2, -0.1, -0.3)}

    def r2(fit) -> float:
        return 0.8 + lost.get(fit.weight, (0.0, 0.0, 0.0))[fit.seed]

    workers = Kept(beside, r2)
    choice = beside("replication.choice").choose("Reg 1", range(3), workers, (1.0, 2.0, 3.0, 4.0))
    assert choice.weight == 2.0 and choice.keeps_r2
    assert max(fit.weight for fit in workers.asked) == 3.0


def test_lambda_may_cost_what_is_allowed_and_the_choice_says_so(beside) -> None:
    lost = {1.0: -0.001, 2.0: -0.004, 3.0: -0.1}
    workers = Kept(beside, lambda fit: 0.8 + lost.get(fit.weight, 0.0))
    asked = ("Reg 1", range(2), workers, (1.0, 2.0, 3.0))
    choice = beside("replication.choice").choose(*asked, r2_tolerance=0.005)
    assert choice.weight == 2.0 and choice.keeps_r2 and "keeps R2 to 0.005" in str(choice)
    assert choice.differences[2.0] == pytest.approx(-0.004)


def test_what_is_missed_is_said_by_how_much(beside) -> None:
    comparison, Score = beside("replication.comparison"), beside("replication.scoring").Score
    Fit, Scored = beside("replication.training").Fit, beside("replication.fits").Scored
    nan, scored = float("nan"), {}
    for seed, gain in enumerate((0.1, 0.12, 0.08)):
        ms = torch.tensor([0.5, 0.6, 0.7, nan], dtype=torch.float64)
        better = torch.tensor([0.5 + gain, 0.6 + gain, nan, nan], dtype=torch.float64)
        for fit, score in (
            (Fit(seed=seed), Score(0.9, 0.8, ms, 1, 0, 3.0)),
            (Fit("Reg 1", 1.0, seed), Score(0.897, 0.83, better, 2, 0, 3.0)),
        ):
            scored[fit] = Scored(fit, {"test": score})
    line = comparison.line(Fit("Reg 1", 1.0), scored, range(3))
    assert line.differences["MS, scored in both"].mean == pytest.approx(0.1)
    assert line.differences["mean MS, silent as 0"].mean == pytest.approx((0.2 - 0.7) / 4)
    short = {point.name: point.short for point in comparison.points(line, d_sae=40)}
    assert short["MS over latents scored in both is higher"] == 0
    assert short["mean MS with silent latents as 0 is higher"] > 0.125
    assert short["R2 is at least the baseline's - .001"] == pytest.approx(0.002)
    assert short["R2 at 2k is higher by .015"] == 0
    assert short["silent latents are at most 1 more"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [(0.0123, 0.004, "+.0123 ± .0040"), (-10.5, 3.0, "-10.5 ± 3.0"), (0.2, 1.5, "+.2 ± 1.5")],
)
def test_a_difference_is_shown_with_half_its_interval(mean, half, text, beside) -> None:
    tables, interval = beside("replication.tables"), beside("replication.comparison").Interval
    assert tables.signed(interval(mean, mean - half, mean + half, 5)) == text


def test_a_difference_of_one_seed_has_no_interval(beside) -> None:
    interval = beside("replication.comparison").Interval
    alone = interval(-0.0123, float("nan"), float("nan"), 1)
    assert beside("replication.tables").signed(alone) == "-.0123"
