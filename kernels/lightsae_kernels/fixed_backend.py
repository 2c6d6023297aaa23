"""The public operations with a backend fixed, under the names that the backends' packages have."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

OPERATIONS = ("encode_residual", "encode_topk", "sparse_decode", "sparse_residual")


def operations_of(package: str, backend: str) -> Callable[[str], Any]:
    """`__getattr__` of a backend's package; the operations import the backends, not the reverse.

    Args:
        package: Its `__name__`.
        backend: What the operations are to run.

    Example:
        >>> operations_of("lightsae_kernels.cpu", "cpu")("sparse_decode").keywords
        {'backend': 'cpu'}
    """

    def find(name: str) -> Any:
        if name not in OPERATIONS:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return partial(getattr(import_module("lightsae_kernels"), name), backend=backend)

    return find
