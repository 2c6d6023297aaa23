"""What a file holds against what its format promises: tensors by shape, settings by kind."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.shown_values import shown

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def checked(
    found: Any,
    path: Path,
    shapes: Mapping[str, tuple[int | str, ...]],
    *,
    optional: Collection[str] = (),
    ignored: Collection[str] = (),
    sizes: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """The tensors of a file that a format promises.

    Args:
        found: What the file holds: tensors by name.
        path: The file, named in errors.
        shapes: Of each tensor the sizes, as numbers or by name; a name stands for one size
            throughout, which the first tensor that has it tells.
        optional: Names of these that may be absent.
        ignored: Other names that may be there and change nothing.
        sizes: What names of sizes stand for where the configuration says it.

    Returns:
        The tensors of `shapes`.

    Raises:
        LightsaeError: Naming the file and the tensor: one that is missing or unknown, of another
            shape, not of floating point, or with NaN or infinite numbers.

    Example:
        >>> promised = {"encoder.weight": ("d_sae", "d_in"), "encoder.bias": ("d_sae",)}
        >>> held = {"encoder.weight": torch.ones(6, 2), "encoder.bias": torch.ones(5)}
        >>> checked(held, Path("sae.pt"), promised)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: sae.pt: tensor 'encoder.bias' has shape [5], expected \
[d_sae = 6]
    """
    if not isinstance(found, Mapping):
        raise LightsaeError(f"{path} holds a {type(found).__name__}, expected tensors by name")
    known = dict(sizes or {})
    unknown = sorted(str(name) for name in found if name not in (*shapes, *ignored))
    if unknown:
        raise LightsaeError(f"{path}: unknown tensor {unknown[0]!r}, expected {', '.join(shapes)}")
    tensors = {}
    for name, shape in shapes.items():
        if name in found:
            _require_shape(found[name], shape, known, f"{path}: tensor {name!r}")
            tensors[name] = found[name]
        elif name not in optional:
            raise LightsaeError(f"{path}: tensor {name!r} is missing")
    return tensors


def _require_shape(
    tensor: Any, shape: tuple[int | str, ...], known: dict[str, int], what: str
) -> None:
    if not isinstance(tensor, Tensor):
        raise LightsaeError(f"{what} is a {type(tensor).__name__}, expected a tensor")
    if not _is_dense(tensor):
        raise LightsaeError(f"{what} is not a dense tensor")
    if tensor.dim() == len(shape):
        for size, name in zip(tensor.shape, shape, strict=True):
            if isinstance(name, str):
                known.setdefault(name, size)
    expected = [known.get(name, 0) if isinstance(name, str) else name for name in shape]
    if list(tensor.shape) != expected:
        told = ", ".join(
            f"{name} = {known[name]}" if name in known else str(name) for name in shape
        )  # fmt: skip
        raise LightsaeError(f"{what} has shape {list(tensor.shape)}, expected [{told}]")
    if 0 in expected:
        raise LightsaeError(f"{what} is empty")
    if tensor.dtype not in _DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise LightsaeError(f"{what} is of {tensor.dtype}, expected one of {names}")
    if _lacks_numbers(tensor):
        raise LightsaeError(f"{what} claims more numbers than it holds")
    if not torch.isfinite(tensor).all():
        raise LightsaeError(f"{what} has NaN or infinite values")


def setting(
    config: Mapping[str, Any], key: str, kind: type[Any], path: Path, default: Any = None
) -> Any:
    """A setting of a configuration, of the kind expected.

    Args:
        config: The configuration.
        key: Its name.
        kind: bool, int, float (which an int is too), str or dict.
        path: The file, named in errors.
        default: Where it is absent or null; without one, that is an error.

    Raises:
        LightsaeError: If it is missing or of another kind, or an int is smaller than 1 or beyond
            64 bits.

    Example:
        >>> setting({"k": 8.5}, "k", int, Path("cfg.json"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: cfg.json: 'k' is 8.5, expected int
    """
    value = config.get(key)
    if value is None:
        if default is None:
            raise LightsaeError(f"{path}: {key!r} is missing, expected {kind.__name__}")
        return default
    if type(value) is int and abs(value) >= 2**63:
        raise LightsaeError(f"{path}: {key!r} is {shown(value)}, expected a number below 2^63")
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise LightsaeError(f"{path}: {key!r} is {shown(value)}, expected {kind.__name__}")
    if kind is int and value < 1:
        raise LightsaeError(f"{path}: {key!r} is {value}, expected at least 1")
    return value


def number(value: Any) -> float | None:
    """The number that a tensor of one element holds, if it is one and float32 can hold it.

    Example:
        >>> number(torch.tensor([2.5])), number(torch.tensor(torch.inf)), number(2.5)
        (2.5, None, None)
    """
    if not isinstance(value, Tensor) or not _is_dense(value) or value.numel() != 1:
        return None
    if value.is_complex() or _lacks_numbers(value):
        return None
    found = float(value.item())
    return found if abs(found) <= torch.finfo(torch.float32).max else None


def require_ones(factor: Any, name: str, path: Path) -> None:
    """Refuse a factor that changes something; one that is absent or of ones does not.

    Raises:
        LightsaeError: Naming the file.

    Example:
        >>> require_ones(torch.ones(3), "scaling_factor", Path("sae.safetensors"))
    """
    if factor is None:
        return
    plain = isinstance(factor, Tensor) and _is_dense(factor) and factor.dtype in _DTYPES
    if not plain or _lacks_numbers(factor) or not torch.allclose(factor, torch.ones_like(factor)):
        raise LightsaeError(f"{path}: {name} is not 1: a finetuned factor has no place")


def _is_dense(tensor: Tensor) -> bool:
    on_cpu = tensor.device.type == "cpu"
    return tensor.layout == torch.strided and on_cpu and not tensor.is_quantized


def _lacks_numbers(tensor: Tensor) -> bool:
    """Whether a tensor's shape claims more than its file has given."""
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
