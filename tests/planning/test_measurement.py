"""Calibrating this machine, at sizes that take a moment."""

import pytest

from lightsae.planning import Shape, calibrate, load_calibration, make_plan


@pytest.mark.slow
def test_a_machine_is_measured_and_planned_for(tmp_path) -> None:
    found = calibrate("cpu", small=True)
    found.save(tmp_path / "rates.json")
    assert load_calibration(tmp_path / "rates.json") == found
    assert found.kind == "cpu" and found.efficiencies["copy"] == 1
    shape = Shape(d_in=64, d_sae=512, k=4, batch=32, state_dtype="int8", product="bfloat16")
    plan = make_plan(shape, "cpu", calibration=found)
    assert 0 < plan.layouts[0].step_seconds < 60
