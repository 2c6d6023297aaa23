"""Without a GPU the Triton kernels are interpreted; triton reads that when it is imported."""

import os
import sys
from importlib.util import find_spec
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def untraced(call: Any) -> Any:
    """Coverage, which leaves kernels out, would double the time that the interpreter takes."""

    def run(*args: Any, **options: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return call(*args, **options)
        finally:
            sys.settrace(tracer)

    return run


def xor_at_once(slowly: Any) -> Any:
    """The interpreter has no xor of an axis, which its sort consists of, but element by element."""

    def run(self: Any, input: tuple[Any, ...]) -> Any:
        if self.combine_fn is not tl.standard._xor_combine:
            return slowly(self, input)
        (x,) = input
        found = np.bitwise_xor.reduce(x.handle.data, axis=self.axis, keepdims=self.keep_dims)
        return [self.to_tensor(found, x.dtype)]

    return run


if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None:
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import GridExecutor, ReduceOps

    GridExecutor.__call__ = untraced(GridExecutor.__call__)
    ReduceOps.generic_reduce = xor_at_once(ReduceOps.generic_reduce)
