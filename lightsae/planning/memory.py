"""Bytes of one rank by part, at the worst moment of a step.

Parameters are float32. N are the latents of a rank, D = d_in, B the rows of its batch, s the bytes
of an element of a product, P = 2 N D + N + D. That moment is in the backward pass or in the update,
when gradients and moments are all there:

    parameters 4 P     gradients 4 P     moments 8 P, 4 P, or 2.03 bytes of each matrix element
    narrow copies      s N D on a CPU, 2 s N D on a GPU, in mixed precision
    activations        s B N for a regularizer; a row block otherwise
    largest temporary  that of the backward pass or of the update, whichever is larger

On a GPU activations and temporaries are those of docs/kernels.md. On a CPU they were counted, and
what the C library keeps of memory that was freed is in the figures of the narrow moments.
"""

from typing import NamedTuple

from lightsae.planning.shape import Shape

MIB = 1 << 20
CPU_BLOCK, GPU_BLOCK = 12 * MIB, 256 * MIB
UPDATE_ELEMENTS = 1 << 22
# Bytes for each element of a block of the CPU's update.
UPDATE_BYTES = {"float32": 4, "bfloat16": 12, "int8": 94}
PROCESS = 12 * MIB
CUDA_CONTEXT = 512 * MIB
# Of 8-bit moments: how many neighbours share a scale.
SCALED = 256


class Part(NamedTuple):
    """One part of a rank's memory.

    Attributes:
        name: What it is for.
        bytes: How many.
        basis: formula, or assumption where the figure depends on what is not known beforehand.
    """

    name: str
    bytes: int
    basis: str = "formula"


def memory_of(shape: Shape, data: int, latent: int, kind: str) -> tuple[Part, ...]:
    """What a rank holds at the worst moment.

    Args:
        shape: The sizes.
        data: Ranks that have batches of their own.
        latent: Ranks that share the dictionary.
        kind: gpu or cpu.

    Example:
        >>> shape = Shape(d_in=768, d_sae=8192, k=32, batch=4096)
        >>> parts = memory_of(shape, 1, 1, "gpu")
        >>> parts[0]
        Part(name='parameters', bytes=50367488, basis='formula')
        >>> total(parts) > 4 * parts[0].bytes
        True
    """
    N, D, B, k = -(-shape.d_sae // latent), shape.d_in, shape.batch, shape.k
    elements = 2 * N * D + N + D
    parts = [
        Part("parameters", 4 * elements),
        Part("gradients", 4 * elements),
        Part("moments", moments(shape, N)),
    ]
    if shape.mixed and shape.optimizer == "SAEAdam":
        parts.append(Part("narrow copies", shape.itemsize * N * D * (2 if kind == "gpu" else 1)))
    parts += [
        Part("activations", _activations(shape, N, kind)),
        Part("inputs, residual and code", 12 * B * D + 12 * B * k),
    ]
    aux = 0
    if shape.k_aux:
        parts.append(Part("rows of dead latents", _dead_rows(shape, N), "assumption"))
        aux = 12 * N * D
    parts.append(Part("largest temporary", max(_backward(shape, kind) + aux,
                                               _update(shape, N, kind))))  # fmt: skip
    if latent > 1:
        parts.append(Part("candidates", 8 * B * k * latent))
    if data > 1:
        parts.append(Part("gradient buckets", 4 * elements))
    return (*parts, *_around(shape, kind))


def total(parts: tuple[Part, ...]) -> int:
    """Bytes of all parts."""
    return sum(part.bytes for part in parts)


def moments(shape: Shape, N: int) -> int:
    """Bytes of both moments of all parameters; in 8 bits biases keep float32."""
    D = shape.d_in
    if shape.state_dtype == "int8":
        return 4 * N * D + 16 * N * -(-D // SCALED) + 8 * (N + D)
    return (4 if shape.state_dtype == "bfloat16" else 8) * (2 * N * D + N + D)


def _activations(shape: Shape, N: int, kind: str) -> int:
    whole = shape.itemsize * shape.batch * N
    if shape.regularizer == "dense":
        return 3 * 4 * shape.batch * N
    if kind == "cpu":
        return whole if shape.regularizer != "none" else min(whole, CPU_BLOCK)
    kept = shape.regularizer != "none" and shape.mixed
    return whole if kept else min(whole, GPU_BLOCK)


def _dead_rows(shape: Shape, N: int) -> int:
    return round(2 * shape.dead_share * 4 * N * shape.d_in)


def _backward(shape: Shape, kind: str) -> int:
    pairs = shape.batch * shape.k
    if kind == "cpu":
        return 36 * pairs
    return max(
        4 * shape.batch * shape.d_in + 6 * pairs, (16 * 17 + shape.d_in) * pairs // 16 + 4 * pairs
    )


def _update(shape: Shape, N: int, kind: str) -> int:
    if shape.optimizer != "SAEAdam":
        return 8 * N * shape.d_in
    if kind == "gpu":
        return 0
    return UPDATE_BYTES[shape.state_dtype] * min(N * shape.d_in, UPDATE_ELEMENTS)


def _around(shape: Shape, kind: str) -> list[Part]:
    batch = 4 * shape.batch * shape.d_in
    if kind == "gpu":
        return [
            Part("batches on the way", 2 * batch),
            Part("CUDA context and library", CUDA_CONTEXT, "assumption"),
        ]
    group, rows = max(1, shape.buffer_rows // 2), shape.stored_rows
    pool = min(group, rows) if rows else group
    groups = min(3, -(-rows // group)) if rows else 3
    return [
        Part("shard buffers", groups * pool * shape.row_bytes + batch),
        Part("process", PROCESS, "assumption"),
    ]
