"""What a compiled variant of a kernel is."""

from typing import NamedTuple

import torch
import triton.language as tl

ELEMENTS = {"bf16": 2, "fp16": 2, "fp32": 4}
DTYPES = {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32}
GPU = torch.device("cuda")


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
