"""The cost of an anchor: the blocks add up, and `every` keeps them under a tenth of a step."""

import pytest


def test_every_follows_from_block_and_step(beside, run_here, tmp_path):
    program, common = beside("steps.anchor"), beside("common")
    small = ("--vectors", 60, "--d_sae", 48, "--d_in", 8, "--batch", 16, "--k", 2, "--chunk", 24)
    out = tmp_path / "anchor.csv"
    run_here(program, *small, "--repeats", 2, "--steps", 1, "--threads", 1, "--out", out)
    rows = common.read_rows(out)
    assert all(tuple(row) == common.COLUMNS and row["benchmark"] == "anchor" for row in rows)
    found = {row["operation"]: float(row["median"]) for row in rows}
    assert len(found) == 1 + 3 * 4
    for reduction in ("max", "logsumexp", "softmax"):
        forward, backward = (found[f"{reduction} block {part}"] for part in ("forward", "backward"))
        again = 1 if reduction == "max" else 2.5
        cost = 2 * (2.5 * forward + again * backward)
        assert found[f"{reduction} whole"] == pytest.approx(cost, rel=0.05, abs=0.2)
        every = found[f"{reduction} every"]
        assert found[f"{reduction} whole"] / every <= 0.1 * found["step"] * 1.05 + 0.1


def test_a_cheap_anchor_is_computed_at_every_step(beside, monkeypatch):
    program = beside("steps.anchor")
    monkeypatch.setattr(program, "step", lambda *_: [1e9])
    rows = program.measure(program.Sizes(6, 4, 3, 2, 1, 2), repeats=1, steps=1)
    assert [row["median"] for row in rows if row["unit"] == "steps"] == [1, 1, 1]
