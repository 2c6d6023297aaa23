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
import triton.language as tl
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
from lightsae_kernels.fused.tile_configs import GRADIENT, PRODUCT, RAGGED, ProductConfig, programs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHITECTURES = (80, 90, 100)
MATRIX_UNIT = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}
# Bytes that triton 3.8 spills in three variants, for sizes that 16 does not divide.
SPILLS = {
    ("3.8", "decode 1024, any sizes", "fp16", 90): 16,
    ("3.8", "select 65535, k 512", "bf16", 90): 8,
    ("3.8", "encode_gradient 64x64x32 ratio, any B and d_sae", "fp32", 100): 8,
}
ELEMENTS = {"bf16": 2, "fp16": 2, "fp32": 4}
DTYPES = {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32}
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

    Of one that is not aligned 16 divides no address and no size, else all but the `odd`. In a loop
    it loads `scalars` numbers of two bytes for all its threads.
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
    scalars: int = 0


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


WEIGHT_GRADIENTS = [
    (enc, dec, accumulate)
    for enc, dec in ((True, False), (False, True), (True, True))
    for accumulate in ((False, True) if enc else (False,))
]
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


def fingerprint(wanted: list[tuple["Case", int]]) -> str:
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


def penalty_cases(dtype: str) -> Iterator[Case]:
    """What a regularizer takes from stored activations."""
    rows, warps = programs(4096, GPU, per_warp=512)
    for masked in (True, False):
        tiles = {"MASKED": masked, "BLOCK_B": rows, "BLOCK_N": 4096}
        yield Case(f"row_norms{' masked' * masked}", "row_norms", dtype, tiles, warps)
    yield Case("column_sums", "column_sums", dtype, {"BLOCK_B": 32, "BLOCK_N": 128}, 4)


def decode_cases(dtype: str) -> Iterator[Case]:
    """Decode and residual in one dtype and in mixed precision; the gradient of the values."""
    for d_in in (384, 1024, 8192):
        yield decode_case(f"decode {d_in}", dtype, d_in)
        yield decode_case(f"decode_residual {d_in}", dtype, d_in, residual=True)
    yield decode_case("decode 1024, any sizes", dtype, 1024, aligned=False)
    through = (("out_ptr", "*fp32"), ("values_ptr", "*fp32"))
    yield decode_case("decode 1024, gradient of x", dtype, 1024, types=through, bias=False)
    tiles = {"BLOCK_K": 16, "BLOCK_D": 256, "PRODUCT": DTYPES[dtype]}
    yield Case("values_gradient", "values_gradient", dtype, tiles, 4)
    yield Case("values_gradient, any sizes", "values_gradient", dtype, tiles, 4, aligned=False)
    if ELEMENTS[dtype] == 2:
        wide = tuple((pointer, "*fp32") for pointer in ("bias_ptr", "x_ptr", "out_ptr"))
        for residual in (False, True):
            name = f"decode{'_residual' * residual} 1024, float32 decoder"
            yield decode_case(name, dtype, 1024, residual=residual, types=wide,
                              note=" and its copy")  # fmt: skip
            yield decode_case(name, dtype, 1024, residual=residual,
                              types=(*wide, ("w_ptr", "*fp32")))  # fmt: skip
        upstream = (("g_ptr", f"*{dtype}"),)
        yield Case(f"values_gradient, {dtype} upstream", "values_gradient", dtype, tiles, 4,
                   types=upstream)  # fmt: skip
        yield Case("values_gradient, float32 decoder", "values_gradient", dtype, tiles, 4,
                   types=(*upstream, ("w_ptr", "*fp32")))  # fmt: skip


def decode_case(
    name: str, dtype: str, d_in: int, *, residual: bool = False, bias: bool = True,
    aligned: bool = True, types: tuple[tuple[str, str], ...] = (), note: str = "",
) -> Case:  # fmt: skip
    block, narrow = decode.block_d(d_in), ELEMENTS[dtype] == 2
    rows, warps = programs(block, GPU)
    tiles = {"BIAS": bias, "RESIDUAL": residual, "NARROW": residual and narrow,
             "PRODUCT": DTYPES[dtype], "BLOCK_B": rows, "BLOCK_D": block, "UNROLL": 4}  # fmt: skip
    # The values of a row are numbers for all threads, and come one by one.
    scalars = 4 if narrow and ("values_ptr", "*fp32") not in types else 0
    return Case(name + note, "decode", dtype, tiles, warps, aligned=aligned, types=types,
                scalars=scalars)  # fmt: skip


def order_cases() -> Iterator[Case]:
    """The counting sort: of many pairs and of few."""
    for block in (1024, 128):
        yield Case(f"count {block}", "count", "fp32", {"BLOCK": block, "BLOCK_N": 2048}, 8)
        yield Case(f"place {block}", "place", "fp32", {"BLOCK": block}, 16)
    yield Case("tile_starts", "tile_starts", "fp32", {"BLOCK_N": 256}, 4)
    tiles = {"CHUNK": 128, "BLOCK_N": 2048}
    yield Case("latent_starts", "latent_starts", "fp32", tiles, 8)


def select_cases(dtype: str) -> Iterator[Case]:
    """Up to 8192 maxima and candidates, in dictionaries that 16 divides and in others."""
    for n, k in ((8192, 32), (65536, 64), (65536, 512), (131_072, 512), (1 << 20, 32)):
        group = select.group_size(n, k)
        block_m, block_k = triton.next_power_of_2(n // group), max(2, triton.next_power_of_2(k))
        sizes = {"GROUP": group, "BITS": 8 * ELEMENTS[dtype] - 1, "BLOCK_M": block_m,
                 "BLOCK_K": block_k, "BLOCK_N": select.scanned_columns(n, group)}  # fmt: skip
        for columns, odd in ((n, ()), (n - 1, ("B", "N", "K"))):
            for scan, norms in ((False, False), (True, False), (True, True)):
                if (columns, k) != (65536, 64) and norms:
                    continue
                rows, warps = select.select_programs(
                    block_m, block_k * group, columns, GPU, scan=scan
                )
                tiles = sizes | {"SCAN": scan, "NORMS": norms, "BLOCK_B": rows}
                note = ", scanned" * scan + " with norms" * norms
                yield Case(f"select {columns}, k {k}{note}", "select", dtype, tiles, warps, odd=odd)
    for k in (32, 512):
        rows, warps = programs(k, GPU)
        tiles = {"BLOCK_B": rows, "BLOCK_K": k}
        yield Case(f"select_given, k {k}", "select_given", dtype, tiles, warps)


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
    first, *others = PRODUCT[arch]
    for epilogue in EPILOGUES:
        yield encode_case(epilogue, "", dtype, first, whole=True)
        yield encode_case(epilogue, ", d_in 80", dtype, first, whole=False)
    for config in others:
        for epilogue in ("maxima", "maxima+sums"):
            yield encode_case(epilogue, "", dtype, config, whole=True)
    any_sizes = encode_case("maxima+sums", ", any B and d_sae", dtype, first, whole=True)
    yield any_sizes._replace(odd=("B", "N"))
    for group in (1, 32, 64):
        case = encode_case("maxima+sums", f", groups of {group}", dtype, first, whole=True)
        yield case._replace(constants=case.constants | {"GROUP": group})


def encode_case(
    epilogue: str, shape: str, dtype: str, config: ProductConfig, *, whole: bool
) -> Case:
    maxima, sums, norms, masked, store = EPILOGUES[epilogue]
    tile = f"{config.block_b}x{config.block_n}x{config.block_d}"
    return Case(
        f"encode {tile} {epilogue}{shape}", "encode", dtype,
        {"GROUP": 16 if maxima else 1, "STORE": store, "MAXIMA": maxima, "SUMS": sums,
         "NORMS": norms, "MASKED": masked, "BLOCK_B": config.block_b, "BLOCK_N": config.block_n,
         "BLOCK_D": config.block_d, "WHOLE_D": whole, "SUPER": config.super_rows},
        config.warps, config.stages,
    )  # fmt: skip


def gradient_cases(arch: int, dtype: str) -> Iterator[Case]:
    """The backward pass of the regularizers."""
    alone, added = GRADIENT[arch, ELEMENTS[dtype]]
    for ratio in (False, True):
        for accumulate in (False, True):
            yield regularizer_case(dtype, added if accumulate else alone, ratio, accumulate)
            if alone != added and not accumulate:
                yield regularizer_case(dtype, added, ratio, accumulate, ", d_in 128")
            case = regularizer_case(dtype, RAGGED, ratio, accumulate, ", d_in 77")
            yield case._replace(aligned=False)
    case = regularizer_case(dtype, added, True, True, ", any B and d_sae")
    yield case._replace(odd=("B", "N"))
    case = regularizer_case(dtype, alone, True, False, ", any B and d_sae")
    yield case._replace(odd=("B", "N"))
    case = regularizer_case(dtype, alone, True, False, ", unmasked")
    yield case._replace(constants=case.constants | {"MASKED": False})
    if dtype == "fp32":
        case = regularizer_case(dtype, alone, True, False, ", tf32")
        yield case._replace(constants=case.constants | {"PRECISION": "tf32"})


def weights_cases(dtype: str) -> Iterator[Case]:
    """Gradients of both weight matrices, in blocks of columns that stay in L2."""
    for block in (256, 1024):
        for enc, dec, accumulate in WEIGHT_GRADIENTS:
            name = f"{' encoder' * enc}{' decoder' * dec}{' accumulated' * accumulate}"
            yield weights_case(
                f"weight_gradients {block}{name}", dtype, block, enc, dec, accumulate
            )
    every = (True, True, True)
    case = weights_case("weight_gradients 1024, any sizes", dtype, 1024, *every)
    yield case._replace(aligned=False)
    if ELEMENTS[dtype] == 2:
        for block in (256, 512, 1024):
            yield weights_case(
                f"weight_gradients {block}, {dtype} residual", dtype, block, *every
            )._replace(types=(("g_ptr", f"*{dtype}"),))
    if dtype == "fp32":
        for enc, dec in ((True, False), (False, True), (True, True)):
            case = weights_case("", dtype, 1024, enc, dec, False)
            tiles = {k: v for k, v in case.constants.items() if k not in ("LENGTH", "ACCUMULATE")}
            name = f"partial_sums{' encoder' * enc}{' decoder' * dec}"
            yield case._replace(name=name, kernel="partial_sums", constants=tiles, warps=8)


def weights_case(name: str, dtype: str, block: int, enc: bool, dec: bool, accumulate: bool) -> Case:
    return Case(
        name, "weight_gradients", dtype,
        {"ENC": enc, "DEC": dec, "ACCUMULATE": accumulate, "LENGTH": 128, "STEPS": 17,
         "CHUNKS": 1, "BLOCK_D": block},
        weight_gradients.gradient_warps(block, enc or None, dec or None),
    )  # fmt: skip


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
