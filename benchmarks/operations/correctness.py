"""How far the fused operations are from float64, and whether they repeat themselves bit by bit."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from lightsae_kernels import reference
from operations import decode
from operations.encode import REGULARIZERS, ours
from operations.inputs import Inputs
from operations.names import DECODE, NESTED, RECOMPUTE, RESIDUAL
from operations.sizes import Size
from torch import Tensor

EPS = 1e-8
BLOCK_BYTES = 512 << 20
REPEATS = {"cuda": 10, "cpu": 2}
# Beyond these a result is wrong. A penalty is one number, whose error in the reference may be 0.
MOST_RATIO, MOST_PENALTY_ERROR = 2.0, 0.01


class Check(NamedTuple):
    """Errors of one output of one operation, ||output - exact|| / ||exact||.

    Attributes:
        operation: The operation.
        output: Which of its outputs.
        error: Of the fused operation against the definition in float64, at the same support.
        reference_error: Of the definition in the same dtype.
        differing: Repeats that gave other bits than the first.
        repeats: How many there were.
    """

    operation: str
    output: str
    error: float
    reference_error: float
    differing: int
    repeats: int

    @property
    def ratio(self) -> float:
        """Error over the reference's error; 0 if there is none."""
        if self.error == 0:
            return 0.0
        return self.error / self.reference_error if self.reference_error else math.inf


def checks(inputs: Inputs, size: Size) -> Iterator[Check]:
    """Values of every encoding, its penalty, the reconstruction and the residual."""
    repeats = REPEATS[inputs.x.device.type]
    for operation, regularizer in REGULARIZERS.items():
        code, *others = (ours(inputs, size, regularizer) for _ in range(repeats))
        differing = sum(not _same(code, other) for other in others)
        mask = code.batch_active
        exact, plain = (
            at_support(inputs, code.indices, mask, regularizer, dtype)
            for dtype in (torch.float64, inputs.x.dtype)
        )
        outputs = zip(("values", "penalty"), (code.values, code.penalty), exact, plain, strict=True)
        for output, actual, expected, same_dtype in outputs:
            if output == "values" or regularizer is not None:
                errors = _error(actual, expected), _error(same_dtype, expected)
                yield Check(operation, output, *errors, differing, repeats)
    x_hat, *others = (decode.ours(inputs) for _ in range(repeats))
    differing = sum(not torch.equal(x_hat, other) for other in others)
    exact, plain = (decoded(inputs, dtype) for dtype in (torch.float64, inputs.x.dtype))
    errors = _error(x_hat, exact), _error(plain, exact)
    yield Check(DECODE, "x_hat", *errors, differing, repeats)
    exact, plain = (residual(inputs, dtype) for dtype in (torch.float64, inputs.x.dtype))
    for operation, call in ((RESIDUAL, decode.ours), (NESTED, decode.nested)):
        left, *others = (call(inputs, inputs.x.float()) for _ in range(repeats))
        differing = sum(not torch.equal(left, other) for other in others)
        errors = _error(left, exact), _error(plain, exact)
        yield Check(operation, "residual", *errors, differing, repeats)


def wrong(checks: Iterable[Check]) -> dict[str, str]:
    """Operations that no time should be taken of, and why."""
    found = {}
    for check in checks:
        if check.differing:
            found[check.operation] = f"{check.differing} of {check.repeats} repeats differ"
        elif check.output == "penalty" and not check.error <= MOST_PENALTY_ERROR:
            found[check.operation] = f"error of penalty is {check.error:.2g}"
        elif check.output != "penalty" and not check.ratio <= MOST_RATIO:
            found[check.operation] = (
                f"error of {check.output} is {check.ratio:.3g} times the reference's"
            )
    if "encode+l1_l2_ratio" in found:
        found[RECOMPUTE] = found["encode+l1_l2_ratio"]
    return found


def at_support(
    inputs: Inputs, indices: Tensor, mask: Tensor, regularizer: str | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Values and penalty of the definition in a dtype, at a given support, block by block."""
    x, *parameters = (t.to(dtype) for t in inputs.encoder)
    values, penalty = [], torch.zeros((), dtype=torch.float64, device=x.device)
    for rows in _row_blocks(inputs):
        a = reference.activations(x[rows], *parameters)
        values.append(a.gather(1, indices[rows]))
        if regularizer == "off_support_l1":
            penalty += len(a) * reference.off_support_l1(a, indices[rows], mask).double()
        elif regularizer == "l1_l2_ratio":
            penalty += len(a) * reference.l1_l2_ratio(a, mask, EPS).double()
    return torch.cat(values), penalty / len(x)


def decoded(inputs: Inputs, dtype: torch.dtype) -> Tensor:
    """The definition's reconstruction in a dtype, block by block."""
    values, W_dec, b_dec = (t.to(dtype) for t in (inputs.values, inputs.parameter, inputs.b_dec))
    return torch.cat([
        reference.sparse_decode(values[rows], inputs.indices[rows], W_dec, b_dec)
        for rows in _row_blocks(inputs)
    ])  # fmt: skip


def residual(inputs: Inputs, dtype: torch.dtype) -> Tensor:
    """The definition's residual in a dtype, block by block."""
    x, values, W_dec, b_dec = (
        t.to(dtype) for t in (inputs.x, inputs.values, inputs.parameter, inputs.b_dec)
    )
    return torch.cat([
        reference.sparse_residual(x[rows], values[rows], inputs.indices[rows], W_dec, b_dec)[0]
        for rows in _row_blocks(inputs)
    ])  # fmt: skip


def _row_blocks(inputs: Inputs) -> Iterator[slice]:
    height = max(1, BLOCK_BYTES // (8 * len(inputs.W_enc)))
    for start in range(0, len(inputs.x), height):
        yield slice(start, start + height)


def _same(code: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(code[:4], other[:4], strict=True))


def _error(actual: Tensor, exact: Tensor) -> float:
    difference = torch.linalg.vector_norm(actual.double() - exact.double())
    return float(difference / torch.linalg.vector_norm(exact.double()).clamp_min(1e-300))
