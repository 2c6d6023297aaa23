"""The directions of a vocabulary: read, checked, and told from others by a digest."""

from functools import lru_cache
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.files import expanded

KEY = "vectors"
_ROWS = 8192


def read_vectors(path: str | Path) -> Tensor:
    """The vectors of a vocabulary file.

    Autoencoders of one process that name the same file have one tensor.

    Args:
        path: A safetensors file with `vectors` [V, d] of a floating dtype.

    Raises:
        LightsaeError: If there is no such file or it holds no such vectors.

    Example:
        >>> read_vectors("words.safetensors")
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
def _read(file: Path, modified: int, size: int) -> Tensor:
    try:
        with safe_open(file, "pt") as content:
            if KEY not in content.keys():  # noqa: SIM118 (not a mapping)
                raise LightsaeError(
                    f"{file}: holds {sorted(content.keys())}, expected {KEY!r} [V, d]"
                )
            vectors: Tensor = content.get_tensor(KEY)
    except (SafetensorError, OSError, KeyError) as error:
        raise LightsaeError(f"{file} is not a safetensors file: {error}") from error
    require_directions(vectors, f"{KEY!r} of {file}")
    return vectors


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
        norms = torch.linalg.vector_norm(vectors[start : start + _ROWS].double(), dim=1)
        wrong = (~((norms > 0) & norms.isfinite())).nonzero()
        if len(wrong):
            row = int(wrong[0])
            kind = "zero" if norms[row] == 0 else "not finite"
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
