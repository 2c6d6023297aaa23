"""Time on a roofline: the floors of a known shape, what scales with what, and calibrations."""

import pytest

from lightsae.planning.devices import DEVICES, device, device_called
from lightsae.planning.shape import Shape
from lightsae.planning.step_time import Rates, datasheet_rates, step_time, work_of

LARGE = Shape(d_in=1024, d_sae=65536, k=64, batch=16384, product="bfloat16")
H200 = datasheet_rates(device("H200"))


def milliseconds(shape: Shape, rates: Rates = H200, kind: str = "gpu") -> dict[str, float]:
    return {part.name: 1e3 * part.seconds for part in step_time(shape, 1, kind, rates, (), {})}


def test_the_floors_of_a_large_step_on_an_h200() -> None:
    """2 B d n over 788 TFLOP/s is 2.8 ms, B k rows over 4.3 TB/s 0.5 ms, 28 bytes each 0.9 ms."""
    perfect = H200._replace(efficiencies=dict.fromkeys(H200.efficiencies, 4.3 / 4.8))
    found = milliseconds(LARGE)
    assert found["product"] == pytest.approx(2.8, rel=0.02)
    bound = milliseconds(LARGE, perfect)
    assert bound["decode"] == pytest.approx(0.5, rel=0.02)
    assert bound["update"] == pytest.approx(0.9, rel=0.12)
    assert 5 < sum(bound.values()) < 7


def test_a_regularizer_costs_a_second_product() -> None:
    with_reg = milliseconds(LARGE._replace(regularizer="off_support_l1"))
    assert with_reg["its gradient"] == pytest.approx(milliseconds(LARGE)["product"])


def test_accumulation_repeats_everything_but_the_update() -> None:
    once, twice = milliseconds(LARGE), milliseconds(LARGE._replace(accumulate=2))
    assert twice["product"] == pytest.approx(2 * once["product"])
    assert twice["update"] == once["update"]


def test_narrow_moments_move_fewer_bytes() -> None:
    took = [milliseconds(LARGE._replace(state_dtype=state))["update"]
            for state in ("float32", "bfloat16", "int8")]  # fmt: skip
    assert took == sorted(took, reverse=True)


def test_a_calibration_replaces_efficiencies_and_adds_overhead() -> None:
    rates = datasheet_rates(device("H200"), {"product.bfloat16": 0.5})
    found = milliseconds(LARGE, rates._replace(overhead=0.01, factor=2.0))
    assert found["product"] == pytest.approx(2e3 * 2 * 16384 * 1024 * 65536 / (0.5 * 989e12))
    assert found["overhead"] == pytest.approx(10)


def test_on_a_cpu_the_weight_is_passed_once_for_each_block_of_rows() -> None:
    shape = Shape(d_in=64, d_sae=1 << 16, k=8, batch=480)
    passes = next(work for work in work_of(shape, 1, "cpu") if work.name == "passes of W_enc")
    assert passes.bytes == 10 * 4 * 64 * (1 << 16)


@pytest.mark.parametrize("name", DEVICES)
def test_a_driver_s_name_leads_to_the_device(name: str) -> None:
    assert device_called(f"NVIDIA {name} SXM") == device(name.lower())
    assert device_called("NVIDIA GeForce") is None
