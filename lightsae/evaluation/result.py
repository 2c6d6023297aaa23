"""`EvaluationResult`: what an evaluation gives, as evaluation.json and evaluation.safetensors."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.files import replacing

FORMAT = 1
JSON, TENSORS = "evaluation.json", "evaluation.safetensors"
Scalar = float | int | None

_HEADER = 8
_METADATA = "evaluation_json"
_DTYPES = (torch.int64, torch.float64, torch.float32, torch.bool)
_ABOUT: Mapping[str, tuple[type, ...]] = {
    "run_dir": (str,),
    "checkpoint": (str,),
    "step": (int,),
    "split": (str,),
    "rows": (int,),
    "images": (int,),
    "d_in": (int,),
    "d_out": (int,),
    "d_sae": (int,),
    "k": (int,),
    "selection": (str,),
    "regularizer": (dict,),
    "seed": (int,),
    "shards": (dict,),
    "targets": (dict,),
    "embeddings": (list,),
    "pooling": (str,),
    "date": (str,),
    "versions": (dict,),
}


@dataclass(eq=False)
class EvaluationResult:
    """One autoencoder over one split.

    Scalars that are not finite become None, so that a result is the same after `save` and `load`.

    Attributes:
        about: What was evaluated, plain values: run_dir, checkpoint, step, split, rows, images,
            d_in, d_out of a transcoder, d_sae, k, selection (the rule's name), regularizer
            ({"name", "weight"} or None), seed, shards ({"path", "digest"}), targets of a transcoder
            ({"path", "digest", "layer"}), embeddings (of each its "name", width "d_e" and
            "source"), pooling, date, versions. What does not apply is None.
        scalars: One number each, None where it is undefined. With embeddings E, the keys are
            "ms_mean/E", "ms_scored/E", ...
        curves: Of each curve its columns, lists of one length; NaN where a point is undefined.
        latents: Tensors [d_sae] or [d_sae, n] of int64, float64, float32 or bool.

    Raises:
        LightsaeError: If something does not have this form.

    Example:
        >>> import tempfile
        >>> result = EvaluationResult(
        ...     about={"d_sae": 3, "split": "test"},
        ...     scalars={"r2": 0.9, "ms_mean/cnn": float("nan")},
        ...     curves={"rank_profile": {"rank": [1.0, 2.0], "activation": [0.5, 0.1]}},
        ...     latents={"firings": torch.tensor([4, 0, 1])},
        ... )
        >>> folder = tempfile.mkdtemp()
        >>> result.save(folder)
        >>> EvaluationResult.load(folder).scalars
        {'r2': 0.9, 'ms_mean/cnn': None}
    """

    about: dict[str, Any]
    scalars: dict[str, Scalar] = field(default_factory=dict)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    latents: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scalars = {name: _finite(value) for name, value in self.scalars.items()}
        _check(self, "the result")

    @property
    def d_sae(self) -> int:
        """Size of the dictionary."""
        found: int = self.about["d_sae"]
        return found

    @property
    def embedding_names(self) -> list[str]:
        """Names of the embeddings in which monosemanticity was measured."""
        return [entry["name"] for entry in self.about.get("embeddings") or []]

    def save(self, folder: str | Path) -> None:
        """Write evaluation.safetensors and evaluation.json, each replaced as a whole.

        Both carry the other's digest, so that a pair of which a crash replaced only one is refused
        by `load`.

        Args:
            folder: Where; made if it is not there.

        Raises:
            LightsaeError: If a value is none that JSON can hold, or the folder cannot be written.
        """
        folder = Path(folder)
        described = {
            "format": FORMAT,
            "about": _nulled(self.about),
            "scalars": self.scalars,
            "curves": _nulled(self.curves),
        }
        try:
            digest = _digest(described)
        except (TypeError, ValueError) as error:
            raise LightsaeError(f"{folder / JSON} cannot hold the result: {error}") from error
        # A copy of each: safetensors refuses tensors that share memory.
        tensors = {
            name: tensor.detach().cpu().clone().contiguous() for name, tensor in _sorted(self)
        }
        content = serialize_tensors(tensors, {_METADATA: digest})
        described["xxh3"] = xxhash.xxh3_64_hexdigest(content)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / TENSORS) as temporary:
                temporary.write_bytes(content)
            with replacing(folder / JSON) as temporary:
                temporary.write_text(json.dumps(described, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise LightsaeError(f"{folder} cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote; nothing in the files is run.

        Args:
            folder: The folder with both files.

        Raises:
            LightsaeError: If a file is missing, malformed or altered, or they are not of one
                evaluation.

        Example:
            >>> EvaluationResult.load("nowhere")
            Traceback (most recent call last):
            ...
            lightsae.errors.LightsaeError: nowhere/evaluation.json cannot be read: No such file \
or directory; `lightsae test` writes it
        """
        folder = Path(folder)
        described = _described(folder / JSON)
        content = _bytes(folder / TENSORS)
        said = described.pop("xxh3")
        pair = f"{folder / JSON} and {TENSORS} are not of one evaluation, or were altered"
        try:
            digest = _digest(described)
        except ValueError as error:  # a number beyond float64 reads as infinite
            raise LightsaeError(f"{folder / JSON} holds a number that is none: {error}") from error
        if xxhash.xxh3_64_hexdigest(content) != said or _named_digest(content) != digest:
            raise LightsaeError(f"{pair}: run `lightsae test` again")
        try:
            latents = parse_tensors(content)
        except SafetensorError as error:
            raise LightsaeError(f"{folder / TENSORS} is not a safetensors file: {error}") from error
        found = cls.__new__(cls)
        found.about, found.scalars = described["about"], described["scalars"]
        found.curves, found.latents = described["curves"], latents
        _check(found, str(folder / JSON))
        found.curves = {
            name: {column: [_number(x) for x in points] for column, points in curve.items()}
            for name, curve in found.curves.items()
        }
        return found


def _sorted(result: EvaluationResult) -> list[tuple[str, Tensor]]:
    return sorted(result.latents.items())


def _finite(value: Any) -> Any:
    """A scalar as JSON can hold it, Python's own number."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _nulled(value: Any) -> Any:
    """Plain values with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _nulled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nulled(item) for item in value]
    return _finite(value)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _digest(described: dict[str, Any]) -> str:
    """Hash of everything in the JSON but the other file's."""
    text = json.dumps(described, sort_keys=True, allow_nan=False)
    return xxhash.xxh3_64_hexdigest(text.encode())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LightsaeError(
            f"{path} cannot be read: {error.strerror}; `lightsae test` writes it"
        ) from error


def _described(path: Path) -> dict[str, Any]:
    """The JSON, of the right format and with all its keys."""
    try:
        described = json.loads(_bytes(path), parse_constant=_refuse)
    except LightsaeError:
        raise
    except (ValueError, RecursionError) as error:
        raise LightsaeError(f"{path} is not JSON: {error}") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise LightsaeError(f"{path} is not an evaluation of format {FORMAT}")
    for key, kind in {"about": dict, "scalars": dict, "curves": dict, "xxh3": str}.items():
        if type(described.get(key)) is not kind:
            raise LightsaeError(f"{path}: key {key!r} is missing or not of type {kind.__name__}")
    return described


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is none of its numbers")


def _named_digest(content: bytes) -> str | None:
    """The digest of the JSON that a file of tensors names in its header."""
    size = int.from_bytes(content[:_HEADER], "little")
    try:
        header = json.loads(content[_HEADER : _HEADER + size])
        named: str | None = header["__metadata__"][_METADATA]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return named


def _check(result: EvaluationResult, where: str) -> None:
    """Refuse what does not have the form of a result."""
    _check_about(result.about, where)
    for name, value in result.scalars.items():
        if value is not None and not _is_number(value):
            raise LightsaeError(f"{where}: scalar {name!r} is {value!r}, expected a number or None")
    for name, curve in result.curves.items():
        _check_curve(name, curve, where)
    d_sae = result.about["d_sae"]
    for name, tensor in result.latents.items():
        right = isinstance(tensor, Tensor) and tensor.dim() in (1, 2) and len(tensor) == d_sae
        if not right or tensor.dtype not in _DTYPES:
            found = f"{list(tensor.shape)} {tensor.dtype}" if hasattr(tensor, "dtype") else tensor
            raise LightsaeError(
                f"{where}: latents {name!r} is {found}, expected [{d_sae}] or [{d_sae}, n] of "
                "int64, float64, float32 or bool"
            )


def _check_about(about: Any, where: str) -> None:
    size = about.get("d_sae") if isinstance(about, dict) else None
    if type(size) is not int or size < 1:
        raise LightsaeError(f"{where}: about.d_sae is {size!r}, expected a positive integer")
    for name, kinds in _ABOUT.items():
        value = about.get(name)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise LightsaeError(
                f"{where}: about.{name} is {value!r}, expected {kinds[0].__name__} or nothing"
            )
    for entry in about.get("embeddings") or []:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise LightsaeError(f"{where}: about.embeddings holds {entry!r}, expected a name in it")


def _check_curve(name: str, curve: Any, where: str) -> None:
    columns: list[Any] = list(curve.values()) if isinstance(curve, dict) else [None]
    for column in columns:
        if not isinstance(column, list) or not all(x is None or _is_number(x) for x in column):
            raise LightsaeError(f"{where}: curve {name!r} is not made of lists of numbers")
    lengths = sorted({len(column) for column in columns})
    if len(lengths) > 1:
        raise LightsaeError(f"{where}: curve {name!r} has columns of {lengths} points")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
