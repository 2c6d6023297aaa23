"""Choice of the implementation of an operation: reference, CPU or Triton."""

import os
import warnings
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from lightsae_kernels import cpu, reference
from lightsae_kernels.argument_checks import ArgumentError

OLDEST = (8, 0)
MAX_K = 512
MAX_D_IN = 8192
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def choose_backend(
    name: str, tensor: Tensor, *, dtypes: tuple[torch.dtype, ...], k: int, d_in: int
) -> ModuleType:
    """The module that serves a tensor.

    Args:
        name: "auto", "reference", "cpu" or "triton".
        tensor: The first argument of the operation.
        dtypes: Dtypes that the operation computes with.
        k: Latents kept per row.
        d_in: Width of the rows.

    Raises:
        ArgumentError: If the name is none of the four, or the kernels do not serve such a tensor.
        RuntimeError: If the backend does not fit the device.

    Example:
        >>> tensor = torch.zeros(1)
        >>> choose_backend("auto", tensor, dtypes=(tensor.dtype,), k=1, d_in=1).__name__
        'lightsae_kernels.cpu'
    """
    on_cpu = tensor.device.type == "cpu"
    if name == "reference" or (name == "auto" and tensor.device.type not in ("cpu", "cuda")):
        return reference
    if name == "cpu" and not on_cpu:
        raise RuntimeError(f"backend='cpu' needs CPU tensors, got {tensor.device}")
    if name == "cpu" or (name == "auto" and on_cpu):
        return cpu
    if name not in ("auto", "triton"):
        raise ArgumentError(f"backend must be 'auto', 'reference', 'cpu' or 'triton', got {name!r}")
    if on_cpu and os.environ.get("TRITON_INTERPRET", "").lower() not in ("1", "true", "on", "yes"):
        raise RuntimeError(
            "backend='triton' needs CUDA tensors, got a CPU tensor; "
            "set TRITON_INTERPRET=1 before triton is imported to interpret the kernels"
        )
    obstacle = _obstacle_of(tensor.device) or _misfit(on_cpu, dtypes, k, d_in)
    if obstacle is None:
        from lightsae_kernels import fused

        return fused
    if name == "triton":
        raise ArgumentError(f"backend='triton' does not serve this: {obstacle}")
    _tell(obstacle)
    return reference


def finds_faults(backend: ModuleType, tensor: Tensor) -> bool:
    """Whether the backend's kernels find NaN, inf and wrong indices on the way.

    Looking before or after them would wait for the device.
    """
    return tensor.is_cuda and backend is not reference


# Nothing traces into a cache: a graph takes what it holds as a constant.
@torch.compiler.assume_constant_result
def _obstacle_of(device: torch.device) -> str | None:
    return _obstacle(device)


@torch.compiler.assume_constant_result
def _tell(obstacle: str) -> None:
    _warn_once(obstacle)


@cache
def _obstacle(device: torch.device) -> str | None:
    """Why this device cannot run the kernels."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type == "cuda":
        if torch.version.hip is not None:
            return "the kernels are for NVIDIA GPUs"
        capability = torch.cuda.get_device_capability(device)
        if capability < OLDEST:
            return f"compute capability {capability} is older than {OLDEST}"
    return None


def _misfit(interpreted: bool, dtypes: tuple[torch.dtype, ...], k: int, d_in: int) -> str | None:
    """Why the kernels do not take such arguments; the same words for all that fail alike."""
    for dtype in dtypes:
        if dtype not in _DTYPES:
            return f"dtype {dtype} has no kernel"
        if interpreted and dtype == torch.bfloat16:
            return "triton's interpreter gets bfloat16 products wrong"
    if k < 1 or d_in < 1:
        return "k or d_in is 0"
    if k > MAX_K:
        return f"k is larger than {MAX_K}"
    if d_in > MAX_D_IN:
        return f"d_in is larger than {MAX_D_IN}"
    return None


@cache
def _warn_once(obstacle: str) -> None:
    warnings.warn(f"lightsae_kernels runs unfused on this GPU: {obstacle}", stacklevel=5)
