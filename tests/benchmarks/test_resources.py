"""Shipped kernels compile for every architecture without a GPU; `make resources` does all."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "resources.py"


def resources(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=150)


@pytest.mark.slow
def test_no_spill_and_products_on_the_matrix_unit() -> None:
    done = resources("--dtype", "bf16", "--only", "maxima+sums")
    assert done.returncode == 0, done.stdout + done.stderr
    compiled, bad = re.search(r"(\d+) compiled, (\d+) with", done.stdout).groups()
    assert int(compiled) >= 9
    assert int(bad) == 0
    assert done.stdout.count("yes") == int(compiled)


@pytest.mark.slow
def test_selection_does_not_spill() -> None:
    done = resources("--arch", "90", "--dtype", "fp16", "--only", "select 819")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 compiled, 0 with" in done.stdout


@pytest.mark.slow
def test_the_optimizer_does_not_spill_at_the_widest_rows() -> None:
    done = resources("--arch", "80", "--dtype", "fp32", "--only", "adam_step 8192 decoder+copy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 compiled, 0 with" in done.stdout


FAULTS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import resources
from compiled import compilation

resources.ProcessPoolExecutor, compilation.PRODUCTS = ThreadPoolExecutor, ("select_given",)
tiles = {"MASKED": True, "BLOCK_B": 1, "BLOCK_N": 8192}
few_warps = resources.Case("row_norms", "row_norms", "fp16", tiles, 1)
tiles = {"BLOCK_B": 1, "BLOCK_K": 32}
no_product = resources.Case("select_given", "select_given", "fp16", tiles, 1)
resources.cases = lambda arch, dtype: [few_warps, no_product]
sys.argv[1:] = ["--arch", "90", "--dtype", "fp16"]
sys.exit(resources.main())
"""


@pytest.mark.slow
def test_a_spill_and_a_product_off_the_matrix_unit_fail() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], cwd=SCRIPT.parent, capture_output=True, text=True,
        timeout=150,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 compiled, 2 with" in done.stdout
    assert done.stdout.count("NO") == 1


OLD_WAY = """
import triton
import triton.language as tl


@triton.jit
def masked_kernel(
    a_ptr, mask_ptr, sums_ptr, B, N, WIDE: tl.constexpr, BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    column = tl.arange(0, BLOCK_N)
    counted = tl.load(mask_ptr + column, mask=column < N, other=0) != 0
    total = tl.zeros((BLOCK_B, BLOCK_N), tl.float32)
    for start in range(0, B, BLOCK_B):
        row = start + tl.arange(0, BLOCK_B)
        at = a_ptr + row[:, None] * N + column[None, :]
        if WIDE:
            a = tl.load(at, mask=(row < B)[:, None] & (column < N)[None, :], other=0.0)
            a = tl.where(counted[None, :], a, 0.0)
        else:
            a = tl.load(at, mask=(row < B)[:, None] & counted[None, :], other=0.0)
        total += a.to(tl.float32)
    tl.store(sums_ptr + column, tl.sum(total, axis=0), mask=column < N)
"""
LOADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import resources
import old_way
from compiled import compilation

resources.ProcessPoolExecutor = ThreadPoolExecutor
compilation.KERNELS["masked"] = old_way.masked_kernel
resources.cases = lambda arch, dtype: [
    resources.Case(
        f"wide {wide}", "masked", dtype, {"WIDE": wide, "BLOCK_B": 16, "BLOCK_N": 256}, 4
    )
    for wide in (True, False)
]
sys.argv[1:] = ["--arch", "90", "--dtype", "bf16"]
sys.exit(resources.main())
"""


@pytest.mark.slow
def test_loads_of_two_bytes_in_a_loop_fail(tmp_path: Path) -> None:
    (tmp_path / "old_way.py").write_text(OLD_WAY)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", LOADS], cwd=SCRIPT.parent, capture_output=True, text=True,
        timeout=150, env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 compiled, 1 with" in done.stdout
    found = dict(re.findall(r"^wide (True|False) .* (\S+)$", done.stdout, re.MULTILINE))
    assert found["True"] == "-"
    assert int(found["False"]) >= 1


def test_a_name_that_no_kernel_has_is_refused() -> None:
    done = resources("--only", "nothing like it")
    assert done.returncode == 2
    assert "no kernel's name contains 'nothing like it'" in done.stderr


KNOWN = """
import sys
from concurrent.futures import ThreadPoolExecutor
import resources

resources.ProcessPoolExecutor = ThreadPoolExecutor
for arch in ("80", "80", "90"):
    sys.argv[1:] = ["--arch", arch, "--dtype", "fp32", "--only", "select_given, k 32"]
    sys.argv += ["--unless_known", "KNOWN"]
    assert resources.main() == 0
"""


@pytest.mark.slow
def test_kernels_that_were_found_right_are_compiled_again_only_if_something_changed(
    tmp_path: Path,
) -> None:
    known = tmp_path / "known.txt"
    done = subprocess.run(
        [sys.executable, "-c", KNOWN.replace("KNOWN", str(known))], cwd=SCRIPT.parent,
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.findall(r"^1 (compiled, 0 with|were compiled before)", done.stdout, re.MULTILINE)
    assert said == ["compiled, 0 with", "were compiled before", "compiled, 0 with"]
    assert len(known.read_text().splitlines()) == 2
