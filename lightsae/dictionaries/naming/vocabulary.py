"""`Vocabulary`: names with a direction each, and its file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from lightsae.activations.shards.json_values import plain
from lightsae.errors import LightsaeError
from lightsae.files import replacing
from lightsae.interop.files.safe_files import parse_json, read_safetensors

FORMAT = 1
_METADATA = "vocabulary"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Names, each with a direction in the space that an autoencoder decodes to.

    VASAE (arXiv 2606.27941) takes token embeddings; any directions do, such as those that
    `concept_vocabulary` makes of a list of concepts.

    Attributes:
        names: Different names, not empty [V].
        vectors: Their directions, finite and none of them zero [V, d], floats.
        about: Where they come from, as JSON can hold it.

    Raises:
        LightsaeError: If there are none, counts differ, a name is there twice or empty, or a
            direction is zero or not finite; the name is told.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "animals.safetensors"
        >>> Vocabulary(["cat", "dog"], torch.eye(2)).save(path)
        >>> Vocabulary.load(path).names
        ['cat', 'dog']
        >>> Vocabulary(["cat", "dog", "cat"], torch.ones(3, 2))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: vocabulary: 'cat' is there twice, in rows 0 and 2
    """

    names: list[str]
    vectors: Tensor
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_names(self.names)
        _check_vectors(self.vectors, self.names)

    def __len__(self) -> int:
        """Number of names."""
        return len(self.names)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, replaced as a whole.

        It holds `vectors` [V, d] and `names`, uint8: a JSON list in ASCII.

        Args:
            path: The file; its folder is made if it is not there.

        Raises:
            LightsaeError: If it cannot be written, or `about` is more than JSON can hold.
        """
        path = Path(path)
        settings = {"format": FORMAT, "about": plain(self.about, "about")}
        text = json.dumps(list(self.names)).encode()
        tensors = {
            "vectors": self.vectors.detach().cpu().contiguous(),
            "names": torch.frombuffer(bytearray(text), dtype=torch.uint8),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(serialize_tensors(tensors, {_METADATA: json.dumps(settings)}))
        except OSError as error:
            raise LightsaeError(f"{path} cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; nothing in the file is run.

        Args:
            path: The file.

        Raises:
            LightsaeError: If it is missing, is no vocabulary, or holds names or directions that
                are refused above.

        Example:
            >>> Vocabulary.load("nothing.safetensors")
            Traceback (most recent call last):
            ...
            lightsae.errors.LightsaeError: nothing.safetensors cannot be read: No such file or \
directory
        """
        path = Path(path)
        tensors = read_safetensors(path)
        if sorted(tensors) != ["names", "vectors"]:
            told = ", ".join(sorted(tensors)) or "nothing"
            raise LightsaeError(
                f"{path} holds {told}, expected the vectors and names of a vocabulary"
            )
        about = _about(path)
        names = _names(tensors["names"], path)
        try:
            return cls(names, tensors["vectors"].clone(), about)
        except LightsaeError as error:
            raise LightsaeError(f"{path}: {error}") from error


def _about(path: Path) -> dict[str, Any]:
    """What a file says of its origin."""
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_METADATA, "{}")
    settings = parse_json(text.encode(), path)
    about = settings.get("about")
    if settings.get("format") != FORMAT or not isinstance(about, dict):
        raise LightsaeError(f"{path} is no vocabulary of format {FORMAT}")
    return about


def _names(written: Tensor, path: Path) -> list[str]:
    """The names in a file's tensor of bytes."""
    if written.dtype != torch.uint8 or written.ndim != 1:
        raise LightsaeError(
            f"{path}: names is {written.dtype} {list(written.shape)}, expected bytes of JSON"
        )
    try:
        found = json.loads(written.numpy().tobytes())
    except (ValueError, RecursionError) as error:
        raise LightsaeError(f"{path}: names is no JSON") from error
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise LightsaeError(f"{path}: names is no list of strings")
    return found


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise LightsaeError("vocabulary: there are no names")
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise LightsaeError(f"vocabulary: the name of row {row} is {name!r}, expected a word")
        if name in first:
            raise LightsaeError(
                f"vocabulary: {name!r} is there twice, in rows {first[name]} and {row}"
            )
        first[name] = row


def _check_vectors(vectors: Tensor, names: Sequence[str]) -> None:
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or vectors.dtype not in _DTYPES:
        told = (
            f"{vectors.dtype} {list(vectors.shape)}"
            if isinstance(vectors, Tensor)
            else type(vectors).__name__
        )
        raise LightsaeError(
            f"vocabulary: vectors is {told}, expected floats [names, d] of 16 to 64 bits"
        )
    if len(vectors) != len(names):
        raise LightsaeError(f"vocabulary: {len(names)} names for {len(vectors)} vectors")
    for bad, told in (
        (~vectors.isfinite().all(dim=1), "is not finite"),
        ((vectors == 0).all(dim=1), "is zero: it has no direction"),
    ):
        if bad.any():
            row = int(bad.int().argmax())
            raise LightsaeError(f"vocabulary: the vector of {names[row]!r} (row {row}) {told}")
