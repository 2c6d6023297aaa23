"""What every shipped kernel needs on each architecture, compiled ahead of time. No GPU needed.

    python benchmarks/resources.py

Every kernel with every row of the table of tiles, in the variants that its callers launch; what
differs in few instructions (sizes that 16 does not divide, groups of other widths) in one of them.
Registers, shared memory and spills are read from the machine code; the matrix unit, and loads of
two bytes in a loop, from the PTX. Where 16 divides every size there must be none of the latter:
eight of them could be one, and nothing copies such a load to shared memory ahead of its use.

    python benchmarks/resources.py --unless_known results/resources.txt

compiles nothing where that file has the hash of these kernels, their variants and this triton: all
were compiled before, and nothing was wrong. Otherwise all is compiled, and noted there.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# Triton 3.9 warns while this is unset, and 3.10 changes its default.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
os.environ.pop("TRITON_INTERPRET", None)

import triton
from compiled.cases import ELEMENTS, Case
from compiled.compilation import Resources, compile_case
from compiled.decode_variants import adam_cases, decode_cases, order_cases, weights_cases
from compiled.encode_variants import encode_cases, gradient_cases, penalty_cases, select_cases
from lightsae_kernels.fused import select

ARCHITECTURES = (80, 90, 100)
# Bytes that triton 3.8 spills in three variants, for sizes that 16 does not divide.
SPILLS = {
    ("3.8", "decode 1024, any sizes", "fp16", 90): 16,
    ("3.8", "select 65535, k 512", "bf16", 90): 8,
    ("3.8", "encode_gradient 64x64x32 ratio, any B and d_sae", "fp32", 100): 8,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", type=int, nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES)
    parser.add_argument("--dtype", nargs="+", default=list(ELEMENTS), choices=ELEMENTS)
    parser.add_argument("--only", default="", help="kernels whose name contains this")
    parser.add_argument("--unless_known", type=Path, help="file of what was found to be right")
    options = parser.parse_args()
    wanted = [
        (case, arch)
        for arch in options.arch
        for dtype in options.dtype
        for case in cases(arch, dtype)
        if options.only in case.name
    ]
    if not wanted:
        parser.error(f"no kernel's name contains {options.only!r}")
    known, key = options.unless_known, fingerprint(wanted)
    if known is not None and known.exists() and key in known.read_text():
        print(f"{len(wanted)} were compiled before with triton {triton.__version__}: {key}")
        return 0
    print(f"triton {triton.__version__}, compiled ahead of time")
    print(
        ROW.format(
            "kernel", "dtype", "sm", "registers", "shared KiB", "spilled B", "matrix unit", "narrow"
        )
    )
    bad = few = 0
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for found in pool.map(compile_case, *zip(*wanted, strict=True)):
            print(line(found), flush=True)
            spills = found.spilled > may_spill(found)
            bad += spills or found.matrix_unit is False or found.narrow_loads > 0
            few += bool(found.spilled) and not spills
    result = (
        f"{len(wanted)} compiled, {bad} with a spill, a product off the matrix unit or loads of "
        "two bytes in a loop"
    )
    if few:
        result += f", {few} with a spill that triton {triton.__version__} is known for"
    print(result)
    if known is not None and not bad:
        with known.open("a") as file:
            file.write(f"{key} triton {triton.__version__}: {result}\n")
    return 1 if bad else 0


def may_spill(found: Resources) -> int:
    """Bytes that a variant is known to spill with this triton."""
    version = triton.__version__.rpartition(".")[0]
    return SPILLS.get((version, found.case, found.dtype, found.arch), 0)


def fingerprint(wanted: list[tuple[Case, int]]) -> str:
    """Hash of all that decides what is compiled: the kernels, their variants and the compiler."""
    fused = Path(select.__file__).parent
    sources = [*sorted(fused.glob("*.py")), fused.parent / "quantized_moments.py"]
    parts = [triton.__version__, repr(wanted), *(path.read_text() for path in sources)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def cases(arch: int, dtype: str) -> Iterator[Case]:
    """Every kernel in one dtype, at the largest blocks and at the paper's sizes."""
    if ELEMENTS[dtype] == 2:
        yield from encode_cases(arch, dtype)
    yield from gradient_cases(arch, dtype)
    yield from penalty_cases(dtype)
    yield from select_cases(dtype)
    yield from decode_cases(dtype)
    yield from weights_cases(dtype)
    yield from adam_cases(dtype)
    if dtype == "fp32":
        yield from order_cases()


ROW = "{:56} {:>5} {:>4} {:>9} {:>10} {:>9}  {:11}  {:>6}"


def line(found: Resources) -> str:
    unit = {None: "-", True: "yes", False: "NO"}[found.matrix_unit]
    shared = f"{found.shared / 1024:.1f}"
    return ROW.format(
        found.case, found.dtype, found.arch, found.registers, shared, found.spilled, unit,
        found.narrow_loads or "-",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
