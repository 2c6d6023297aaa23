"""The parts of a step add up to the step, and every part of a variant is seen."""

import pytest


def test_parts_add_up_to_the_step(beside):
    program = beside("steps.step_parts")
    sizes = program.Sizes(batch=64, d_in=16, d_sae=256, k=4)
    variants = ["lightsae", "lightsae reg1", "lightsae bf16"]
    found = program.measure(sizes, variants, rounds=1, steps=1, warmup=1)
    for parts in found.values():
        whole = sum(ms for part in program.ORDER for ms in parts[part])
        assert whole == pytest.approx(parts["step"][0])
    always = ("products", "selection", "decode and residual", "weight gradients", "optimizer")
    assert all(parts[part][0] > 0 for parts in found.values() for part in always)
    assert found["lightsae reg1"]["gradient of the penalty"][0] > 0
    assert found["lightsae"]["gradient of the penalty"] == [0.0]


def test_a_part_does_not_count_what_it_calls(beside, monkeypatch):
    program = beside("steps.step_parts")
    clock, times = program.Clock(), iter([0.0, 1.0, 6.0, 8.0])
    monkeypatch.setattr(program.time, "perf_counter", lambda: next(times))
    with clock.part("outer"), clock.part("inner"):
        pass
    monkeypatch.undo()
    assert clock.seconds == {"inner": 5.0, "outer": 3.0}
