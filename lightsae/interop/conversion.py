"""Autoencoders of other libraries in and out."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lightsae.errors import LightsaeError
from lightsae.files import expanded, replacing
from lightsae.interop.registry import FORMATS, format_named, format_of
from lightsae.interop.translation.folding import folded_autoencoder
from lightsae.interop.translation.transcoders import folded_transcoder
from lightsae.sae import SparseAutoencoder, Transcoder, save_load


def load_foreign(path: str | Path, format: str = "auto") -> SparseAutoencoder:
    """Read an autoencoder that another library wrote.

    Nothing in the files is run: tensors, numbers and text are all that is read of them.

    Args:
        path: The file or folder.
        format: One of `lightsae.interop.FORMATS`, or "auto" to tell it from the files.

    Returns:
        The same function of the inputs, on the CPU, in the dtype of the files; a `Transcoder` where
        another layer is reconstructed or there is a skip. `provenance` says where it comes from.

    Raises:
        LightsaeError: If there is nothing, it is of no known format, is malformed, or has what
            `SparseAutoencoder` cannot represent.

    Example:
        >>> load_foreign("no_such_folder")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: no_such_folder: no such file or folder
    """
    path = Path(expanded(path))
    try:
        path.stat()
    except FileNotFoundError as error:
        raise LightsaeError(f"{path}: no such file or folder") from error
    except OSError as error:
        raise LightsaeError(f"{path} cannot be read: {error.strerror}") from error
    if (path / save_load.SETTINGS).exists():
        raise LightsaeError(f"{path} is of lightsae itself: SparseAutoencoder.load reads it")
    form = format_of(path) if format == "auto" else format_named(format)
    try:
        return form.read(path)
    except LightsaeError as error:
        if str(path) in str(error):
            raise
        raise LightsaeError(f"{path}: {error}") from error


def export_foreign(
    sae: SparseAutoencoder, folder: str | Path, format: str, *, fold: bool = False
) -> None:
    """Write an autoencoder as another library reads it.

    Args:
        sae: The autoencoder.
        folder: Where; made if it is not there, otherwise empty.
        format: One of `lightsae.interop.FORMATS`.
        fold: Put the subtraction of b_dec into b_enc, which every library understands; otherwise
            b_dec is subtracted where `sae` does so and the format has a place for it. Of a
            transcoder likewise b_in.

    Raises:
        LightsaeError: If the format cannot hold it, or the folder has anything in it or cannot be
            written. Nothing is written then.

    Example:
        >>> import tempfile
        >>> from lightsae.sae import TopK
        >>> folder = tempfile.mkdtemp()
        >>> export_foreign(SparseAutoencoder(4, 16, TopK(2)), folder, "saelens")
        >>> sorted(path.name for path in Path(folder).iterdir())
        ['cfg.json', 'sae_weights.safetensors']
    """
    folder = Path(expanded(folder))
    form = format_named(format)
    if isinstance(sae, Transcoder) and not form.TRANSCODERS:
        names = ", ".join(name for name, each in FORMATS.items() if each.TRANSCODERS)
        raise LightsaeError(f"{format} has no transcoders, expected one of {names}")
    require_empty(folder)
    for name, tensor in sae.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise LightsaeError(f"the autoencoder's {name} has NaN or infinite values")
    files = form.files(_folded(sae) if fold else sae)
    with emptied_on_failure(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                with replacing(folder / name) as temporary:
                    temporary.write_bytes(content)
        except OSError as error:
            raise LightsaeError(f"{folder} cannot be written: {error.strerror}") from error


@contextmanager
def emptied_on_failure(folder: Path) -> Iterator[None]:
    """Leave an empty folder empty, and an absent one absent, where writing it fails half way.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "sae"
        >>> with emptied_on_failure(folder):
        ...     folder.mkdir()
        ...     raise LightsaeError("the disk is full")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: the disk is full
        >>> folder.exists()
        False
    """
    was_there = folder.is_dir()
    try:
        yield
    except BaseException:
        for each in folder.iterdir() if folder.is_dir() else ():
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink(missing_ok=True)
        if not was_there and folder.is_dir():
            folder.rmdir()
        raise


def _folded(sae: SparseAutoencoder) -> SparseAutoencoder:
    return folded_transcoder(sae) if isinstance(sae, Transcoder) else folded_autoencoder(sae)


def require_empty(folder: Path) -> None:
    """Refuse a folder with anything in it, and a file.

    Raises:
        LightsaeError: Naming one of the things it has, or why there can be no such folder.

    Example:
        >>> require_empty(Path("no_such_folder"))
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise LightsaeError(f"{folder} is a file, expected an empty folder or none")
        found = next(iter(sorted(folder.iterdir())), None) if folder.is_dir() else None
    except OSError as error:
        raise LightsaeError(f"{folder} cannot be written: {error.strerror}") from error
    if found is not None:
        raise LightsaeError(f"{folder} holds {found.name}: choose an empty folder or a new one")
