"""Plans: the layout that is chosen, what is advised where none fits, and the files."""

import json
from pathlib import Path

import pytest

from lightsae.errors import LightsaeError
from lightsae.planning import Calibration, Plan, Shape, load_calibration, make_plan, shape_of
from lightsae.planning.layouts import USABLE, Layout, link_speeds

SMALL = Shape(d_in=768, d_sae=8192, k=32, batch=4096)
LARGE = SMALL._replace(d_sae=1 << 24, state_dtype="int8")
RATES = Calibration(
    device="A CPU", kind="cpu", memory=1 << 34, threads=2,
    ceilings={"product.float32": 1e11, "copy": 1e10},
    efficiencies=dict.fromkeys(
        ("product.float32", "copy", "pass", "select", "decode", "penalty", "write",
         "update.float32"), 0.5
    ),
    overhead=0.001, factor=1.5, measured="2026-01-01T00:00:00+00:00", versions={"torch": "2.14"},
)  # fmt: skip


def test_what_fits_one_device_is_data_parallel() -> None:
    plan = make_plan(SMALL, "H200", nodes=2, per_node=4)
    assert plan.choice is not None and plan.choice.layout == Layout(8, 1)
    assert plan.least_devices == 1 and plan.changes == ()


def test_a_large_dictionary_is_split_over_as_few_ranks_as_hold_it() -> None:
    plan = make_plan(LARGE, "H200", nodes=4, per_node=8)
    assert plan.choice is not None and plan.choice.layout.name == "2-D"
    assert plan.choice.bytes <= USABLE * plan.device.memory
    before = plan.layouts[plan.chosen - 1]  # type: ignore[operator]
    assert not before.fits and before.layout.latent < plan.choice.layout.latent


def test_where_nothing_fits_each_change_alone_does() -> None:
    plan = make_plan(LARGE._replace(state_dtype="float32"), "A100", per_node=4)
    assert plan.choice is None and plan.seconds is None
    assert any("d_sae" in change.what for change in plan.changes)
    assert plan.changes[-1].what.endswith("GPUs in place of 4")
    assert all(change.bytes <= USABLE * 80e9 for change in plan.changes)


def test_time_for_a_budget_is_rows_over_rows_per_second() -> None:
    plan = make_plan(SMALL, "H100", per_node=8, tokens=10**9)
    assert plan.choice is not None
    rows = 8 * 4096 / plan.choice.step_seconds
    assert plan.seconds == pytest.approx(1e9 / rows)


def test_ranks_that_share_a_dictionary_are_of_one_node_where_they_can() -> None:
    gpu = make_plan(SMALL, "H200").device
    assert link_speeds(Layout(2, 8), gpu, 8) == {"latent": gpu.link, "data": gpu.network}
    assert link_speeds(Layout(1, 16), gpu, 8)["latent"] == gpu.network
    assert link_speeds(Layout(8, 1), gpu, 8)["data"] == gpu.link


def test_a_cpu_takes_the_rates_of_its_calibration() -> None:
    plan = make_plan(SMALL, "cpu", calibration=RATES, calibrated_by="rates.json")
    assert plan.device.memory == RATES.memory and plan.rates == "rates.json"
    assert {part.name for part in plan.layouts[0].step} >= {"passes of W_enc", "overhead"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_plan(SMALL, "H20"), "no GPU 'H20' is known; the closest are H200, "),
        (lambda: make_plan(SMALL, "xyzzy"), "no GPU 'xyzzy' is known; there are A100"),
        (lambda: make_plan(SMALL, "cpu"), "a CPU has no datasheet here: give --calibration"),
        (lambda: make_plan(SMALL, "H200", calibration=RATES), "the calibration is of a cpu"),
        (lambda: make_plan(SMALL, "H200", nodes=0), "nodes is 0, expected at least 1"),
        (lambda: make_plan(SMALL._replace(batch=0), "H200"), "batch is 0, expected at least 1"),
        (lambda: make_plan(SMALL._replace(k=9000), "H200"), "k = 9000 is larger than d_sae = 8192"),
        (lambda: shape_of({}, 8), "model is missing, expected SAEModule"),
        (lambda: shape_of({"model": {"class_path": "a.Other"}}, 8), "model is Other, expected"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_one_line(call, message: str) -> None:
    with pytest.raises(LightsaeError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("trainer", {"precision": "64-true"}, "trainer.precision is '64-true'"),
        ("optimizer", {"class_path": "torch.optim.SGD"}, "model.optimizer is SGD"),
        ("transcoder", {"d_out": 4}, "model.transcoder"),
    ],
)
def test_settings_that_are_not_planned_are_named(where: str, value: dict, message: str) -> None:
    given = {"d_sae": 64} | ({where: value} if where != "trainer" else {})
    settings = {"model": {"class_path": "SAEModule", "init_args": given}}
    if where == "trainer":
        settings[where] = value
    with pytest.raises(LightsaeError, match=message):
        shape_of(settings, 8)


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    for shape in (SMALL, LARGE):
        plan = make_plan(shape, "A100", per_node=2, tokens=5)
        plan.save(tmp_path / "plan.json")
        assert Plan.load(tmp_path / "plan.json") == plan
    assert json.loads((tmp_path / "plan.json").read_text())["estimate"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": "two"}, "plan.json: nodes: it is 'two', expected int"),
        ({"chosen": 7}, "plan.json: chosen is 7, there are 1"),
        ({"more": 1}, "plan.json: more is unknown"),
        ({"format": 9}, "plan.json is no plan of format 1"),
    ],
)
def test_a_plan_that_was_altered_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "plan.json"
    make_plan(SMALL, "H200").save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LightsaeError, match=message):
        Plan.load(path)


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    RATES.save(tmp_path / "rates.json")
    assert load_calibration(tmp_path / "rates.json") == RATES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "tpu"}, "kind is 'tpu', expected cpu or gpu"),
        ({"factor": 0.0}, "factor is 0.0, expected more than 0"),
        ({"overhead": -1.0}, "overhead is -1.0, expected at least 0"),
        ({"ceilings": {"copy": 1.0}}, "ceilings lack copy or product.float32"),
        ({"efficiencies": {"copy": 1.0}}, "efficiencies.product.float32 is missing"),
        ({"threads": 0}, "threads is 0, expected more than 0"),
    ],
)
def test_a_calibration_of_no_sense_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "rates.json"
    RATES.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LightsaeError, match=message):
        load_calibration(path)
