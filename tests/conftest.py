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


if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None:
    from triton.runtime.interpreter import GridExecutor

    GridExecutor.__call__ = untraced(GridExecutor.__call__)
