"""What the kernel benchmark makes of its figures, and how it takes them on a GPU."""

import csv

import pytest
import torch

from benchmarks.common import COLUMNS

from .conftest import BENCHMARKS


def measured(beside, label, times, checks=()):
    """Made-up times in ms of a size on a GPU."""
    inputs, sizes = beside("operations.inputs"), beside("operations.sizes")
    size = {"large": sizes.LARGE, "paper": sizes.PAPER}[label]
    one = beside("operations.report").Measured(size, "bf16", "cuda", checks=list(checks))
    for (operation, name), ms in times.items():
        traffic = size.decode_bytes(2) if operation in ("copy", "sparse_decode") else 0
        flops = size.product_flops if operation.startswith(("product", "encode")) else 0
        case = inputs.Case(operation, name, print, flops, traffic)
        one.timed[case.name] = beside("operations.stopwatch").Timed(case, 1.0, 3, 1, [ms], [ms])
    return one


@pytest.mark.parametrize(
    "path", sorted((BENCHMARKS / "results").glob("*.csv")), ids=lambda p: p.stem
)
def test_stored_results_have_columns_of_the_schema(path):
    with path.open(newline="") as file:
        assert set(next(csv.reader(file))) <= set(COLUMNS)


def test_goals_are_met_missed_or_not_measured(beside):
    goals, names = beside("operations.goals"), beside("operations.names")
    Check = beside("operations.correctness").Check
    checks = [Check("encode", "values", 3e-3, 2e-3, 1, 10),
              Check("encode", "penalty", 3e-3, 2e-3, 1, 10)]  # fmt: skip
    times = {names.BARE: 2.0, names.COPY: 1.0, ("encode", "lightsae"): 2.6,
             ("encode+off_support_l1", "lightsae"): 3.4,
             ("sparse_decode", "lightsae"): 1.4}  # fmt: skip
    shown = {row[:2]: row[2:] for row in goals.table([measured(beside, "large", times, checks)])}
    assert shown["large", "encode / bare product"] == ("<= 1.35", "1.3", "yes")
    assert shown["large", "encode+off_support_l1 / bare product"] == ("<= 1.6", "1.7", "no")
    assert shown["large", "encode+l1_l2_ratio / bare product"] == ("<= 1.6", "not measured", "")
    # The copy moves 2.23 GB in 1 ms, the activations are 2.15 GB.
    assert shown["large", "encode / (product + one pass)"] == ("<= 1", "0.877", "yes")
    decode = "sparse_decode / its bytes at the copy's rate"
    assert shown["large", decode] == ("<= 1.5", "1.4", "yes")
    assert shown["large", "error of values / the reference's"] == ("<= 2", "1.5", "yes")
    assert shown["large", "error of x_hat / the reference's"] == ("<= 2", "not measured", "")
    assert shown["large", "repeats with other bits"] == ("<= 0", "1", "no")
    assert shown["paper", "encode / bare product"] == ("<= 1.8", "not measured", "")


@pytest.mark.parametrize(
    ("output", "error", "differing", "reason"),
    [
        ("values", 4.1e-3, 0, "error of values is 2.05 times the reference's"),
        ("values", float("nan"), 0, "error of values is nan times the reference's"),
        ("penalty", 0.02, 0, "error of penalty is 0.02"),
        ("penalty", 0.009, 1, "1 of 10 repeats differ"),
        ("penalty", 0.009, 0, None),
        ("values", 3.9e-3, 0, None),
    ],
)
def test_an_operation_is_wrong_by_its_errors_or_its_repeats(
    output, error, differing, reason, beside
):
    correctness = beside("operations.correctness")
    check = correctness.Check("encode+l1_l2_ratio", output, error, 2e-3, differing, 10)
    found = correctness.wrong([check])
    expected = (
        {}
        if reason is None
        else {"encode+l1_l2_ratio": reason, "encode+l1_l2_ratio recompute": reason}
    )
    assert found == expected


def test_what_a_gpu_did_is_told_against_the_product_and_the_copy(beside):
    names = beside("operations.names")
    times = {names.BARE: 2.0, names.COPY: 1.0, ("encode", "lightsae"): 2.5}
    one = measured(beside, "large", times)
    found = {metric: value for metric, _, value, _, _ in one.metrics(("encode", "lightsae"))}
    assert found["time_over_product"] == pytest.approx(1.25)
    assert found["of_ceiling"] == pytest.approx(80)
    assert found["arithmetic"] == pytest.approx(2 * 16384 * 1024 * 65536 / 2.5e-3 / 1e12)
    assert found["memory_over_start"] == 1.0


def test_what_has_no_time_has_a_row_that_says_why(beside):
    report = beside("operations.report")
    one = measured(beside, "paper", {("product", "torch"): 2.0})
    one.missing["encode", "reference"] = "does not fit in 80 GiB"
    row = list(report.csv_rows([one]))[-1]
    assert row["implementation"] == "reference"
    assert row["metric"] == "not measured: does not fit in 80 GiB"
    assert "median" not in row
    assert "not measured: encode by reference: does not fit in 80 GiB" in report.words(one)


def test_on_a_gpu_a_call_is_timed_alone_behind_its_flushes(beside, monkeypatch):
    noted = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            noted.append("event")

        def elapsed_time(self, end):
            return 30.0

    class Buffer:
        def zero_(self):
            noted.append("flush")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: noted.append("wait"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1 << 20)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 << 20)
    stopwatch = beside("operations.stopwatch").Stopwatch(torch.device("cpu"))
    stopwatch.on_gpu, stopwatch._buffer, stopwatch._flush_ms = True, Buffer(), 1e9
    case = beside("operations.inputs").Case("encode", "a", lambda: noted.append("call"), 0, 0)
    timed = stopwatch.prepare(case)
    # Two calls fill the 60 ms of a round; a launch takes a part of one flush.
    assert (timed.repeats, timed.flushes, timed.memory_mib) == (2, 2, 2.0)
    noted.clear()
    stopwatch.rounds([timed], 1, deadline=0.0)
    assert noted == 2 * ["flush", "flush", "event", "call", "event", "wait"]
    assert timed.times_ms == [30.0, 30.0]
    assert len(timed.launches_ms) == 2
