"""One variant compiled ahead of time for one architecture, and what its machine code needs."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import triton
from compiled.cases import Case
from lightsae_kernels.fused import (
    adam,
    decode,
    encode_gradient,
    encode_penalty,
    encode_product,
    latent_sort,
    select,
    weight_gradients,
)
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

MATRIX_UNIT = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}
KERNELS = {
    "adam_step": adam.adam_step_kernel,
    "encode": encode_product.encode_product_kernel,
    "encode_gradient": encode_gradient.encode_gradient_kernel,
    "row_norms": encode_penalty.row_norms_kernel,
    "column_sums": encode_penalty.column_sums_kernel,
    "select": select.select_kernel,
    "select_given": select.select_given_kernel,
    "decode": decode.decode_kernel,
    "values_gradient": decode.values_gradient_kernel,
    "weight_gradients": weight_gradients.weight_gradients_kernel,
    "partial_sums": weight_gradients.partial_sums_kernel,
    "count": latent_sort.count_kernel,
    "tile_starts": latent_sort.tile_starts_kernel,
    "latent_starts": latent_sort.latent_starts_kernel,
    "place": latent_sort.place_kernel,
}
# Types of the arguments that are not elements of x.
TYPES = {
    "indices_ptr": "*i64", "active_ptr": "*i8", "mask_ptr": "*i8", "copy_ptr": "*bf16",
    **dict.fromkeys(("flag_ptr", "fault_ptr", "groups_ptr", "pairs_ptr", "offsets_ptr",
                     "extras_ptr", "counts_ptr", "total_ptr", "runs_ptr"), "*i32"),
    **dict.fromkeys(("B", "C", "F", "N", "D", "M", "K", "P", "LENGTH", "TILES", "SIZE"), "i32"),
    **dict.fromkeys(
        ("sums_ptr", "norms_ptr", "l1_ptr", "squares_ptr", "error_ptr", "dz_ptr", "z_ptr", "g_ptr",
         "alpha_ptr", "beta_ptr", "scale_ptr", "dw_ptr", "db_ptr", "dw_enc_ptr", "db_enc_ptr",
         "dw_dec_ptr", "part_enc_ptr", "part_b_ptr", "part_dec_ptr", "step_ptr", "scale_sq_ptr",
         "exp_avg_ptr", "exp_avg_sq_ptr"),
        "*fp32",
    ),
    **dict.fromkeys(("lr", "eps", "weight_decay", "beta1", "rest1", "log_beta1"), "fp32"),
    **dict.fromkeys(("beta2", "rest2", "log_beta2"), "fp32"),
}  # fmt: skip
# Of these the left or the right operand of a product.
PRODUCTS = ("encode", "encode_gradient")


class Resources(NamedTuple):
    """What one compiled kernel needs."""

    case: str
    dtype: str
    arch: int
    registers: int
    shared: int
    spilled: int
    matrix_unit: bool | None
    narrow_loads: int


def compile_case(case: Case, arch: int) -> Resources:
    """Compile one kernel for one architecture and read what it needs."""
    kernel = KERNELS[case.kernel]
    kinds = {
        name: "constexpr" if name in case.constants else TYPES.get(name, f"*{case.dtype}")
        for name in kernel.arg_names
    } | dict(case.types)
    if case.constants.get("RESIDUAL"):
        kinds["out_ptr"] = "*fp32"
    free = [n for n, kind in enumerate(kinds.values()) if kind not in ("constexpr", "fp32")]
    constants = {(kernel.arg_names.index(name),): value for name, value in case.constants.items()}
    odd = [kernel.arg_names.index(name) for name in case.odd]
    aligned = [n for n in free if n not in odd] if case.aligned else []
    attributes = {(n,): [["tt.divisibility", 16]] for n in aligned}
    compiled = triton.compile(
        ASTSource(kernel, kinds, constants, attributes),
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": case.warps, "num_stages": case.stages},
    )
    registers, spilled = usage(compiled.asm["cubin"])
    has_product = case.kernel in PRODUCTS and case.dtype != "fp32"
    unit = MATRIX_UNIT[arch] in compiled.asm["ptx"] if has_product else None
    shared = compiled.metadata.shared
    narrow = loads_of_two_bytes(compiled.asm["ptx"]) if case.aligned and not case.odd else 0
    return Resources(
        case.name, case.dtype, arch, registers, shared, spilled, unit, max(0, narrow - case.scalars)
    )


def loads_of_two_bytes(ptx: str) -> int:
    """How many loads from global memory inside loops are two bytes wide."""
    lines = ptx.splitlines()
    labels = {line.split(":")[0].strip(): n for n, line in enumerate(lines) if line.startswith("$")}
    inside: set[int] = set()
    for n, line in enumerate(lines):
        target = re.search(r"\bbra(?:\.uni)?\s+(\$\w+);", line)
        if target and labels.get(target[1], n) < n:
            inside.update(range(labels[target[1]], n))
    return sum(bool(re.search(r"\bld\.global(?!\S*\.v\d)\S*\.[bus]16\b", lines[n])) for n in inside)


def usage(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a cubin, as cuobjdump prints them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers = max(int(n) for n in re.findall(r"REG:(\d+)", text))
    return registers, max(int(n) for n in re.findall(r"STACK:(\d+)", text))
