"""What every shipped kernel needs on each architecture, compiled ahead of time. No GPU needed.

    python benchmarks/resources.py

Every kernel with every row of the table of tiles, in the variants that its callers launch; what
differs in few instructions (sizes that 16 does not divide, groups of other widths) in one of them.
Registers, shared memory and spills are read from the machine code; the matrix unit from the PTX.

    python benchmarks/resources.py --unless_known results/resources.txt

compiles nothing where that file has the hash of these kernels, their variants and this triton: all
were compiled before, and nothing was wrong. Otherwise all is compiled, and noted there.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

# Triton 3.9 warns while this is unset, and 3.10 changes its default.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from lightsae_kernels.fused import (
    adam,
    decode,
    encode_gradient,
    encode_product,
    select,
    weights,
)
from lightsae_kernels.fused.configs import GRADIENT, PRODUCT, RAGGED, ProductConfig, programs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHITECTURES = (80, 90, 100)
MATRIX_UNIT = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}
# Bytes that triton 3.8 spills in three variants, for sizes that 16 does not divide; 3.9 none.
SPILLS = {
    ("3.8", "decode 1024, any sizes", "fp16", 90): 16,
    ("3.8", "select 8191, k 32", "fp32", 90): 8,
    ("3.8", "encode_gradient 64x64x32, d_in 77", "fp32", 100): 16,
}
ELEMENTS = {"bf16": 2, "fp16": 2, "fp32": 4}
GPU = torch.device("cuda")
# Names of the epilogues that the operations ask for: maxima, column sums, norms, masked, stored.
EPILOGUES = {
    "maxima": (True, False, False, False, True),
    "maxima+sums": (True, True, False, False, True),
    "maxima+norms": (True, False, True, False, True),
    "masked norms": (False, False, True, True, False),
    "store": (False, False, False, False, True),
    "store+sums": (False, True, False, False, True),
    "store+norms": (False, False, True, False, True),
}
# Of the optimizer: learning rate as a tensor, project, normalize, decay, decoupled, copy.
STEPS = {
    "plain": (False, False, False, False, False, False),
    "decay+copy": (False, False, False, True, False, True),
    "decoder": (False, True, True, False, False, False),
    "decoder, clipped": (False, False, True, False, False, False),
    "decoder, decoupled decay": (False, True, True, True, True, False),
    "decoder+copy": (True, True, True, False, False, True),
    "decoder+copy, bf16 moments": (True, True, True, False, False, True),
    "plain, 8-bit moments": (False, False, False, False, False, False),
    "decoder+copy, 8-bit moments": (True, True, True, False, False, True),
}


class Case(NamedTuple):
    """A kernel with the types and constants it ships with.

    Of one that is not aligned 16 divides no address and no size, else all but the `odd`.
    """

    name: str
    kernel: str
    dtype: str
    constants: dict[str, object]
    warps: int
    stages: int = 3
    aligned: bool = True
    types: tuple[tuple[str, str], ...] = ()
    odd: tuple[str, ...] = ()


class Resources(NamedTuple):
    """What one compiled kernel needs."""

    case: str
    dtype: str
    arch: int
    registers: int
    shared: int
    spilled: int
    matrix_unit: bool | None


WEIGHT_GRADIENTS = [
    (enc, dec, accumulate)
    for enc, dec in ((True, False), (False, True), (True, True))
    for accumulate in ((False, True) if enc else (False,))
]
KERNELS = {
    "adam_step": adam.adam_step_kernel,
    "encode": encode_product.encode_product_kernel,
    "encode_norms": encode_product.encode_norms_kernel,
    "encode_gradient": encode_gradient.encode_gradient_kernel,
    "select": select.select_kernel,
    "select_given": select.select_given_kernel,
    "decode": decode.decode_kernel,
    "values_gradient": decode.values_gradient_kernel,
    "weight_gradients": weights.weight_gradients_kernel,
    "partial_sums": weights.partial_sums_kernel,
}
# Types of the arguments that are not elements of x.
TYPES = {
    "indices_ptr": "*i64", "groups_ptr": "*i32", "active_ptr": "*i8", "mask_ptr": "*i8",
    "flag_ptr": "*i32", "sums_ptr": "*fp32", "norms_ptr": "*fp32", "l1_ptr": "*fp32",
    "squares_ptr": "*fp32", "error_ptr": "*fp32", **dict.fromkeys("BCNDMK", "i32"),
    **dict.fromkeys(("pairs_ptr", "offsets_ptr", "owner_ptr", "first_ptr", "slots_ptr"), "*i32"),
    **dict.fromkeys(
        ("dz_ptr", "z_ptr", "g_ptr", "alpha_ptr", "beta_ptr", "scale_ptr", "dw_ptr", "db_ptr",
         "dw_enc_ptr", "db_enc_ptr", "dw_dec_ptr", "part_enc_ptr", "part_b_ptr", "part_dec_ptr",
         "part_ptr"),
        "*fp32",
    ),
    "step_ptr": "*fp32", "copy_ptr": "*bf16", "scale_sq_ptr": "*fp32",
    "exp_avg_ptr": "*fp32", "exp_avg_sq_ptr": "*fp32",
    "SIZE": "i32", **dict.fromkeys(("lr", "eps", "weight_decay"), "fp32"),
    **dict.fromkeys(("beta1", "rest1", "log_beta1", "beta2", "rest2", "log_beta2"), "fp32"),
}  # fmt: skip
# Of these the left or the right operand of a product.
PRODUCTS = ("encode", "encode_gradient")


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
        ROW.format("kernel", "dtype", "sm", "registers", "shared KiB", "spilled B", "matrix unit")
    )
    bad = few = 0
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for found in pool.map(compile_case, *zip(*wanted, strict=True)):
            print(line(found), flush=True)
            spills = found.spilled > may_spill(found)
            bad += spills or found.matrix_unit is False
            few += bool(found.spilled) and not spills
    result = f"{len(wanted)} compiled, {bad} with a spill or a product off the matrix unit"
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


def fingerprint(wanted: list[tuple["Case", int]]) -> str:
    """Hash of all that decides what is compiled: the kernels, their variants and the compiler."""
    sources = sorted(Path(select.__file__).parents[1].rglob("*.py"))
    parts = [triton.__version__, repr(wanted), *(path.read_text() for path in sources)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def cases(arch: int, dtype: str) -> Iterator[Case]:
    """Every kernel in one dtype, at the largest blocks and at the paper's sizes."""
    yield from encode_cases(arch, dtype)
    yield from gradient_cases(arch, dtype)
    size = ELEMENTS[dtype]
    yield from select_cases(dtype)
    for k in (32, 512):
        rows, warps = programs(k, GPU)
        yield Case(
            f"select_given, k {k}", "select_given", dtype, {"BLOCK_B": rows, "BLOCK_K": k}, warps
        )
    rows, warps = programs(4096, GPU, per_warp=512)
    tiles = {"BLOCK_B": rows, "BLOCK_N": 4096}
    yield Case("encode_norms", "encode_norms", dtype, tiles, warps)
    for d_in in (384, 1024, 8192):
        block = decode.block_d(d_in)
        rows, warps = programs(block, GPU)
        for name, residual in (("decode", False), ("decode_residual", True)):
            tiles = {"BIAS": True, "RESIDUAL": residual, "BLOCK_B": rows, "BLOCK_D": block,
                     "UNROLL": 4}  # fmt: skip
            yield Case(f"{name} {d_in}", "decode", dtype, tiles, warps)
            if size == 2 and d_in == 1024:
                wide = ("w_ptr", "bias_ptr", "x_ptr", "out_ptr")
                mixed = tuple((pointer, "*fp32") for pointer in wide)
                yield Case(
                    f"{name} {d_in}, float32 decoder", "decode", dtype, tiles, warps,
                    types=mixed,
                )  # fmt: skip
    block = decode.block_d(1024)
    tiles = {"BIAS": False, "RESIDUAL": False, "BLOCK_B": 1, "BLOCK_D": block, "UNROLL": 4}
    warps = programs(block, GPU)[1]
    through = (("out_ptr", "*fp32"), ("values_ptr", "*fp32"))
    yield Case("decode 1024, gradient of x", "decode", dtype, tiles, warps,
               types=through)  # fmt: skip
    yield Case("decode 1024, any sizes", "decode", dtype, tiles | {"BIAS": True},
               warps, aligned=False)  # fmt: skip
    yield from adam_cases(dtype)


def select_cases(dtype: str) -> Iterator[Case]:
    """Up to 8192 maxima and candidates, in dictionaries that 16 divides and in others."""
    for n, k in ((8192, 32), (65536, 64), (65536, 512), (131_072, 512), (1 << 20, 32)):
        group = select.group_size(n, k)
        block_m, block_k = triton.next_power_of_2(n // group), max(2, triton.next_power_of_2(k))
        tiles = {"GROUP": group, "BITS": 8 * ELEMENTS[dtype] - 1, "BLOCK_M": block_m,
                 "BLOCK_K": block_k}  # fmt: skip
        for columns, odd in ((n, ()), (n - 1, ("B", "N", "K"))):
            rows, warps = select.select_programs(block_m, block_k * group, columns, GPU)
            yield Case(
                f"select {columns}, k {k}", "select", dtype, tiles | {"BLOCK_B": rows}, warps,
                odd=odd,
            )  # fmt: skip


def adam_cases(dtype: str) -> Iterator[Case]:
    """A parameter of one dtype with every treatment; moments in fp32, with one of them in bf16."""
    for d_in in (77, 1024, 8192):
        rows, block, warps = adam.adam_programs(d_in, GPU)
        for name, treatment in STEPS.items():
            flags = ("LR_IS_TENSOR", "PROJECT", "NORMALIZE", "DECAY", "DECOUPLED", "COPY")
            tiles = {**dict(zip(flags, treatment, strict=True)), "BLOCK_B": rows, "BLOCK_D": block}
            types = (("lr", "*fp32"),) if tiles["LR_IS_TENSOR"] else ()
            tiles["QUANTIZED"] = "8-bit" in name
            if "bf16" in name:
                types += (("exp_avg_ptr", "*bf16"), ("exp_avg_sq_ptr", "*bf16"))
            if "8-bit" in name:
                types += (("exp_avg_ptr", "*i8"), ("exp_avg_sq_ptr", "*u8"))
            yield Case(
                f"adam_step {d_in} {name}", "adam_step", dtype, tiles, warps,
                aligned=d_in % 16 == 0, types=types,
            )  # fmt: skip


def encode_cases(arch: int, dtype: str) -> Iterator[Case]:
    """The product with every epilogue in the first row of the table, with two in the others."""
    first, *others = PRODUCT[arch, ELEMENTS[dtype]]
    if dtype == "fp32":
        case = encode_case("maxima+sums", ", tf32", dtype, first, whole=True)
        yield case._replace(constants=case.constants | {"PRECISION": "tf32"})
    for epilogue in EPILOGUES:
        yield encode_case(epilogue, "", dtype, first, whole=True)
        yield encode_case(epilogue, ", d_in 80", dtype, first, whole=False)
        yield encode_case(epilogue, ", d_in 77", dtype, RAGGED, whole=False, aligned=False)
    for config in others:
        for epilogue in ("maxima", "maxima+sums"):
            yield encode_case(epilogue, "", dtype, config, whole=True)
    any_sizes = encode_case("maxima+sums", ", any B and d_sae", dtype, first, whole=True)
    yield any_sizes._replace(odd=("B", "N"))
    for group in (1, 32, 64):
        case = encode_case("maxima+sums", f", groups of {group}", dtype, first, whole=True)
        yield case._replace(constants=case.constants | {"GROUP": group})


def encode_case(
    epilogue: str, shape: str, dtype: str, config: ProductConfig, *, whole: bool,
    aligned: bool = True,
) -> Case:  # fmt: skip
    maxima, sums, norms, masked, store = EPILOGUES[epilogue]
    tile = f"{config.block_b}x{config.block_n}x{config.block_d}"
    return Case(
        f"encode {tile} {epilogue}{shape}", "encode", dtype,
        {"GROUP": 16 if maxima else 1, "STORE": store, "MAXIMA": maxima, "SUMS": sums,
         "NORMS": norms, "MASKED": masked, "PRECISION": "ieee", "BLOCK_B": config.block_b,
         "BLOCK_N": config.block_n, "BLOCK_D": config.block_d, "WHOLE_D": whole,
         "SUPER": config.super_rows},
        config.warps, config.stages, aligned,
    )  # fmt: skip


def gradient_cases(arch: int, dtype: str) -> Iterator[Case]:
    """The backward pass: the regularizers' product, and what is sparse."""
    preferred = GRADIENT[arch, ELEMENTS[dtype]]
    for ratio in (False, True):
        for accumulate in (False, True):
            yield regularizer_case(dtype, preferred, ratio, accumulate)
            case = regularizer_case(dtype, RAGGED, ratio, accumulate, ", d_in 77")
            yield case._replace(aligned=False)
    case = regularizer_case(dtype, preferred, True, True, ", any B and d_sae")
    yield case._replace(odd=("B", "N"))
    case = regularizer_case(dtype, preferred, True, False, ", unmasked")
    yield case._replace(constants=case.constants | {"MASKED": False})
    if dtype == "fp32":
        case = regularizer_case(dtype, preferred, True, False, ", tf32")
        yield case._replace(constants=case.constants | {"PRECISION": "tf32"})
    for block in (512, 1024):
        for enc, dec, accumulate in WEIGHT_GRADIENTS:
            yield Case(
                f"weight_gradients {block}{' encoder' * enc}{' decoder' * dec}"
                f"{' accumulated' * accumulate}", "weight_gradients", dtype,
                {"ENC": enc, "DEC": dec, "ACCUMULATE": accumulate, "LENGTH": 128, "CHUNKS": 1,
                 "BLOCK_D": block}, 4,
            )  # fmt: skip
    tiles = {"ENC": True, "DEC": True, "ACCUMULATE": True, "LENGTH": 128, "CHUNKS": 1,
             "BLOCK_D": 1024}  # fmt: skip
    yield Case(
        "weight_gradients 1024, any sizes", "weight_gradients", dtype, tiles, 4, aligned=False
    )
    for block, accumulate in ((1024, True), (1024, False), (16, True)):
        tiles = {"ACCUMULATE": accumulate, "LATENTS": 1, "BLOCK_D": block}
        name = f"partial_sums {block}{' accumulated' * accumulate}"
        yield Case(name, "partial_sums", dtype, tiles, 4, odd=("D",) if block == 16 else ())
    tiles = {"BLOCK_K": 16, "BLOCK_D": 256}
    yield Case("values_gradient", "values_gradient", dtype, tiles, 4)
    yield Case("values_gradient, any sizes", "values_gradient", dtype, tiles, 4, aligned=False)
    if dtype != "fp32":
        upstream = (("g_ptr", f"*{dtype}"),)
        yield Case(f"values_gradient, {dtype} upstream", "values_gradient", dtype, tiles, 4,
                   types=upstream)  # fmt: skip
        tiles = {"ENC": False, "DEC": True, "ACCUMULATE": False, "LENGTH": 128, "CHUNKS": 1,
                 "BLOCK_D": 1024}  # fmt: skip
        yield Case(f"weight_gradients 1024 decoder, {dtype} upstream", "weight_gradients", dtype,
                   tiles, 4, types=upstream)  # fmt: skip


def regularizer_case(
    dtype: str, config: ProductConfig, ratio: bool, accumulate: bool, note: str = ""
) -> Case:
    return Case(
        f"encode_gradient {config.block_b}x{config.block_n}x{config.block_d}"
        f"{' ratio' * ratio}{' accumulated' * accumulate}{note}",
        "encode_gradient", dtype,
        {"MASKED": True, "RATIO": ratio, "ACCUMULATE": accumulate, "PRECISION": "ieee",
         "BLOCK_N": config.block_b, "BLOCK_D": config.block_n, "BLOCK_B": config.block_d},
        config.warps, config.stages,
    )  # fmt: skip


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
    return Resources(case.name, case.dtype, arch, registers, shared, spilled, unit)


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


ROW = "{:44} {:>5} {:>4} {:>9} {:>10} {:>9}  {}"


def line(found: Resources) -> str:
    unit = {None: "-", True: "yes", False: "NO"}[found.matrix_unit]
    shared = f"{found.shared / 1024:.1f}"
    return ROW.format(
        found.case, found.dtype, found.arch, found.registers, shared, found.spilled, unit
    )


if __name__ == "__main__":
    sys.exit(main())
