"""Weights of other formats: checked by name and shape, and put into an autoencoder of ours."""

import copy
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.sae import Normalization, Selection, SparseAutoencoder

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Weights(NamedTuple):
    """What every sparse autoencoder has, laid out as `SparseAutoencoder` has it.

    Attributes:
        W_enc: [d_sae, d_in].
        b_enc: [d_sae].
        W_dec: [d_sae, d_in].
        b_dec: [d_in].
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor


def with_unit_rows(weights: Weights) -> Weights:
    """Pre-activations times the norms of the decoder's rows, which become 1.

    A row of zeros stays as it is.

    Example:
        >>> rows = torch.tensor([[3.0, 4.0]])
        >>> with_unit_rows(Weights(rows, torch.ones(1), rows, torch.zeros(2))).b_enc
        tensor([5.])
    """
    norms = torch.linalg.vector_norm(weights.W_dec, dim=1)
    norms = norms.where(norms > 0, 1)
    W_enc, b_enc, W_dec, b_dec = weights
    return Weights(W_enc * norms[:, None], b_enc * norms, W_dec / norms[:, None], b_dec)


def widened(weights: Weights) -> Weights:
    """Weights in float32 at least, which folding would otherwise round to a half precision again.

    Example:
        >>> rows = torch.eye(2, dtype=torch.bfloat16)
        >>> widened(Weights(rows, rows[0], rows, rows[0])).W_enc.dtype
        torch.float32
    """
    return Weights(*(t.to(torch.promote_types(t.dtype, torch.float32)) for t in weights))


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
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
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
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
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


def shown(value: Any) -> str:
    """What a file has in the place of something else, in a few words of one line.

    Example:
        >>> shown(torch.zeros(2, 2))
        'tensor([[0., 0.], [0., 0.]])'
    """
    words = " ".join(repr(value).split())
    return words if len(words) <= 80 else f"{words[:77]}..."


def autoencoder(
    weights: Weights,
    selection: Selection,
    *,
    provenance: dict[str, Any],
    normalization: Normalization = "none",
    apply_b_dec_to_input: bool = True,
    threshold: Tensor | None = None,
) -> SparseAutoencoder:
    """An autoencoder of given weights, in the dtype that holds all of them.

    Args:
        weights: The weights; they are copied.
        selection: The rule.
        provenance: Where it comes from; see `origin`.
        normalization: What is done to inputs.
        apply_b_dec_to_input: Whether b_dec is subtracted from inputs.
        threshold: Of rules that have one: a scalar of BatchTopK, [d_sae] of JumpReLU.

    Raises:
        LightsaeError: If sizes and rule do not fit together.

    Example:
        >>> from lightsae.sae import TopK
        >>> rows = torch.eye(3)
        >>> weights = Weights(rows, torch.zeros(3), rows, torch.zeros(3))
        >>> sae = autoencoder(weights, TopK(1), provenance=origin("none", {}))
        >>> sae(torch.tensor([[2.0, 5.0, 3.0]]))
        tensor([[0., 5., 0.]], grad_fn=<...>)
    """
    dtype = weights.W_enc.dtype
    for tensor in weights:
        dtype = torch.promote_types(dtype, tensor.dtype)
    d_sae, d_in = weights.W_enc.shape
    with torch.device("meta"):  # no memory, no random numbers
        sae = SparseAutoencoder(
            d_in, d_sae, selection, normalization, apply_b_dec_to_input=apply_b_dec_to_input
        )
    state = _tensors_of_rule(selection, d_sae)
    state |= {name: _copied(tensor, dtype) for name, tensor in weights._asdict().items()}
    state["scale"] = torch.ones((), dtype=dtype)
    if threshold is not None:
        state["selection.threshold"] = _copied(threshold, torch.float32)
    sae.load_state_dict(state, assign=True)
    sae.provenance = provenance
    return sae


def _tensors_of_rule(selection: Selection, d_sae: int) -> dict[str, Tensor]:
    """What a rule has for a dictionary before it is trained, by its names in an autoencoder."""
    rule = copy.deepcopy(selection)
    if hasattr(rule, "build"):
        rule.build(d_sae)
    state = rule.state_dict() if isinstance(rule, nn.Module) else {}
    return {f"selection.{name}": tensor for name, tensor in state.items()}


def _copied(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Memory of its own: that of the file may change, or be mapped."""
    return tensor.detach().to(dtype, copy=True).contiguous()


def origin(
    format_name: str,
    config: Mapping[str, Any],
    *,
    model: str | None = None,
    hook: str | None = None,
    layer: int | None = None,
    version: str | None = None,
    notes: Iterable[str] = (),
) -> dict[str, Any]:
    """Where an autoencoder comes from, as `SparseAutoencoder.provenance` keeps it.

    Args:
        format_name: `NAME` of the format.
        config: The configuration as the files have it, JSON.
        model: Name of the model that was read.
        hook: Name of the place in it.
        layer: Number of its layer.
        version: Of the library that wrote it.
        notes: In what it is not what the library makes of it, or not ready, and what to do.

    Example:
        >>> origin("saev", {"d_sae": 4}, layer=11)
        {'format': 'saev', 'layer': 11, 'config': {'d_sae': 4}}
    """
    known = {
        "format": format_name,
        "model": model,
        "hook": hook,
        "layer": layer,
        "version": version,
        "notes": list(notes) or None,
    }
    return {name: value for name, value in known.items() if value is not None} | {
        "config": dict(config)
    }


def original_config(sae: SparseAutoencoder, format_name: str, *keys: str) -> dict[str, Any]:
    """The configuration, or the part of it, that an autoencoder of a format came with.

    Args:
        sae: The autoencoder.
        format_name: `NAME` of the format.
        keys: Names that lead to the part.

    Returns:
        The mapping; empty if it came from elsewhere or has no such part.

    Example:
        >>> sae = SparseAutoencoder(4, 32)
        >>> sae.provenance = origin("saelens", {"metadata": {"model_name": "vit"}})
        >>> original_config(sae, "saelens", "metadata"), original_config(sae, "sparsify")
        ({'model_name': 'vit'}, {})
    """
    found: Any = sae.provenance.get("config") if sae.provenance.get("format") == format_name else {}
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return dict(found) if isinstance(found, dict) else {}
