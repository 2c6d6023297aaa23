"""The directions of a vocabulary: read, checked, made unit once; a digest tells them apart."""

from functools import lru_cache
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.files import expanded
from lightsae.sae.losses.anchor_function import unit_rows

KEY = "vectors"
_ROWS = 8192


class Directions:
    """Vectors of a vocabulary, which are not to change, and their directions where they are wanted.

    Args:
        vectors: [V, d], any norm; a floating dtype.
        what: How messages name it.

    Attributes:
        vectors: The same.
        digest: What tells them from others.

    Raises:
        LightsaeError: If they are no matrix of directions.
    """

    def __init__(self, vectors: Tensor, what: str = "vocabulary") -> None:
        require_directions(vectors, what)
        self.vectors, self.digest = vectors, digest_of(vectors)
        self._unit = vectors.new_empty(0)

    def unit_like(self, W: Tensor) -> Tensor:
        """The directions [V, d] on the device of decoder rows, at least float32; made once.

        Example:
            >>> Directions(torch.tensor([[3.0, 4.0]])).unit_like(torch.ones(1, 2))
            tensor([[0.6000, 0.8000]])
        """
        dtype = torch.promote_types(W.dtype, torch.float32)
        if not len(self._unit) or (self._unit.dtype, self._unit.device) != (dtype, W.device):
            self._unit = unit_vectors(self.vectors, dtype).to(W.device)
        return self._unit


def unit_vectors(vectors: Tensor, dtype: torch.dtype) -> Tensor:
    """Vectors of unit norm in a dtype; taken in their own where that is wider."""
    wider = torch.promote_types(vectors.dtype, dtype)
    return torch.cat([unit_rows(part.to(wider))[0].to(dtype) for part in vectors.split(_ROWS)])


def read_directions(path: str | Path) -> Directions:
    """The vectors of a vocabulary file.

    Autoencoders of one process that name the same file share them.

    Args:
        path: A safetensors file with `vectors` [V, d] of a floating dtype.

    Raises:
        LightsaeError: If there is no such file or it holds no such vectors.

    Example:
        >>> read_directions("words.safetensors")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: words.safetensors: no such vocabulary, expected a \
safetensors file with 'vectors' [V, d]
    """
    file = Path(expanded(path))
    if not file.is_file():
        raise LightsaeError(
            f"{path}: no such vocabulary, expected a safetensors file with {KEY!r} [V, d]"
        )
    found = file.stat()
    return _read(file, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1)
def _read(file: Path, modified: int, size: int) -> Directions:
    try:
        with safe_open(file, "pt") as content:
            if KEY not in content.keys():  # noqa: SIM118 (not a mapping)
                raise LightsaeError(
                    f"{file}: holds {sorted(content.keys())}, expected {KEY!r} [V, d]"
                )
            vectors = content.get_tensor(KEY)
    except (SafetensorError, OSError, KeyError) as error:
        raise LightsaeError(f"{file} is not a safetensors file: {error}") from error
    return Directions(vectors, f"{KEY!r} of {file}")


def require_directions(vectors: Tensor, what: str) -> None:
    """Refuse what is no matrix of directions.

    Args:
        vectors: [V, d].
        what: How messages name it.

    Raises:
        LightsaeError: Naming shape and dtype, or the first row that is zero or not finite.

    Example:
        >>> require_directions(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "vocabulary")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: row 1 of vocabulary is zero, expected a direction
    """
    # Narrower floats have no arithmetic of their own.
    right = vectors.is_floating_point() and vectors.element_size() > 1
    if not right or vectors.dim() != 2 or 0 in vectors.shape:
        raise LightsaeError(
            f"{what} is {vectors.dtype} of shape {list(vectors.shape)}, expected floats [V, d]"
        )
    for start in range(0, len(vectors), _ROWS):
        largest = vectors[start : start + _ROWS].abs().amax(dim=1)
        wrong = (~((largest > 0) & largest.isfinite())).nonzero()
        if len(wrong):
            row = int(wrong[0])
            kind = "zero" if largest[row] == 0 else "not finite"
            raise LightsaeError(f"row {start + row} of {what} is {kind}, expected a direction")


def digest_of(vectors: Tensor) -> str:
    """What tells vectors from others: xxh3 of dtype, shape and bytes, 16 hexadecimal digits.

    Example:
        >>> digest_of(torch.eye(2)) == digest_of(torch.eye(2).double())
        False
    """
    kept = vectors.detach().cpu().contiguous()
    digest = xxhash.xxh3_64(f"{kept.dtype} {list(kept.shape)}".encode())
    digest.update(kept.view(torch.uint8).numpy().data)
    return digest.hexdigest()
