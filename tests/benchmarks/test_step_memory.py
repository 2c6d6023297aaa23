"""Memory of a training step: the formulas of the table hold for the interpreted kernels."""

import pytest
import torch

pytest.importorskip("triton")
if torch.cuda.is_available():
    pytest.skip("the kernels are not interpreted where there is a GPU", allow_module_level=True)

SIZES = {"batch": 128, "d_in": 96, "d_sae": 256, "k": 16}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("regularizer", "recompute"),
    [("none", False), ("off_support_l1", True), ("l1_l2_ratio", False)],
    ids=["plain", "reg1-recomputed", "reg2-kept"],
)
def test_each_part_takes_what_its_formula_says(regularizer, recompute, beside):
    program = beside("steps.step_memory")
    device = torch.device("cpu")
    measured = program.measure(SIZES, regularizer, recompute, device)
    few = 20 * (SIZES["batch"] + SIZES["d_sae"])
    predicted = program.parts(SIZES, regularizer, recompute, device)
    assert list(measured) == [part.name for part in predicted]
    # What is left out of the formulas must not be what the test holds.
    assert all(part.predicted > 4 * few for part in predicted if part.predicted)
    for part in predicted:
        assert measured[part.name] <= 1.02 * part.predicted + few, part.name
        assert measured[part.name] >= 0.98 * part.predicted - few, part.name
