"""Variants of the encoder's kernels: product, penalties, selection, gradient."""

from collections.abc import Iterator

import triton
from compiled.cases import ELEMENTS, GPU, Case
from lightsae_kernels.fused import select
from lightsae_kernels.fused.tile_configs import GRADIENT, PRODUCT, RAGGED, ProductConfig, programs

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


def penalty_cases(dtype: str) -> Iterator[Case]:
    """What a regularizer takes from stored activations."""
    rows, warps = programs(4096, GPU, per_warp=512)
    for masked in (True, False):
        tiles = {"MASKED": masked, "BLOCK_B": rows, "BLOCK_N": 4096}
        yield Case(f"row_norms{' masked' * masked}", "row_norms", dtype, tiles, warps)
    yield Case("column_sums", "column_sums", dtype, {"BLOCK_B": 32, "BLOCK_N": 128}, 4)


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
