"""Variants of the other kernels: decode, weight gradients, counting sort, optimizer."""

from collections.abc import Iterator

from compiled.cases import DTYPES, ELEMENTS, GPU, Case
from lightsae_kernels.fused import adam, decode, weight_gradients
from lightsae_kernels.fused.tile_configs import programs

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
WEIGHT_GRADIENTS = [
    (enc, dec, accumulate)
    for enc, dec in ((True, False), (False, True), (True, True))
    for accumulate in ((False, True) if enc else (False,))
]


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
