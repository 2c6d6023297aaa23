"""Reading what torch.save wrote without running code that the file names."""

import io
import re
import tarfile
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from lightsae.error_messages import reason
from lightsae.errors import LightsaeError

_OBJECT = re.compile(r"GLOBAL ([\w.]+)")


def read_torch_file(path: Path, skipped_bytes: int = 0) -> Any:
    """Tensors and plain values of a file, mapped where its format can be.

    Args:
        path: A file of torch.save: a zip archive, or of the format before torch 1.6.
        skipped_bytes: Of something else that the file begins with; it is not mapped then.

    Returns:
        What was saved, on the CPU.

    Raises:
        LightsaeError: Why it cannot be read, without the path.

    Example:
        >>> read_torch_file(Path("no.pt"))
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: FileNotFoundError: [Errno 2] No such file or directory: \
'no.pt'
    """
    try:
        mapped = zipfile.is_zipfile(path) and not skipped_bytes
        source = _rest(path, skipped_bytes) if skipped_bytes else path
        with warnings.catch_warnings():
            # That a file looks like a program of TorchScript is told below.
            warnings.simplefilter("ignore")
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises whatever its parts do
        raise LightsaeError(_why(path, error)) from error


def _rest(path: Path, skipped_bytes: int) -> io.BytesIO:
    """What follows the first bytes of a file."""
    with path.open("rb") as file:
        file.seek(skipped_bytes)
        return io.BytesIO(file.read())


def _why(path: Path, error: Exception) -> str:
    """What is wrong with a file, in place of torch's advice to let it run code."""
    if isinstance(error, UnpicklingError):
        named = _OBJECT.search(str(error))
        if named:
            return f"it holds objects: {named[1]}"
        return "it is not what torch.save writes of tensors"
    if "weights_only" not in str(error):
        return reason(error)
    if tarfile.is_tarfile(path):
        return "it is a tar file of a torch before 0.2: load it there and save it again"
    return "it is a program of TorchScript"
