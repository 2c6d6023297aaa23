"""Modules of torch as `read_inert` gives them: what they hold, without their classes."""

import pickletools
import zipfile
from pathlib import Path

from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.inert_pickle import MAX_PROGRAM_BYTES, Record


def buffers_and_parameters(module: Record, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a module and of those within it, by name as in a state dict.

    Example:
        >>> linear = Record("Linear", state={"_parameters": {"weight": Tensor([1.0])}})
        >>> outer = Record("Sequential", state={"_modules": {"0": linear}})
        >>> buffers_and_parameters(outer)
        {'0.weight': tensor([1.])}
    """
    found = {}
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _held(module, kind).items():
            if isinstance(tensor, Tensor):
                found[prefix + str(name)] = tensor
    for name, inner in _held(module, "_modules").items():
        if isinstance(inner, Record):
            found |= buffers_and_parameters(inner, f"{prefix}{name}.")
    return found


def submodule(module: Record, name: str, path: Path) -> Record:
    """A module within another, with a state.

    Raises:
        LightsaeError: If there is none.
    """
    found = _held(module, "_modules").get(name)
    if not isinstance(found, Record) or not isinstance(found.state, dict):
        raise LightsaeError(f"{path}: {module.named} has no module {name!r}")
    return found


def _held(module: Record, kind: str) -> dict[object, object]:
    held = module.state.get(kind) if isinstance(module.state, dict) else None
    return held if isinstance(held, dict) else {}


def torch_file_names(path: Path) -> set[str]:
    """Classes and functions that a file of torch.save names; none where it is no such file.

    Example:
        >>> torch_file_names(Path("no_such.pt"))
        set()
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [part for part in archive.infolist() if part.filename.endswith("/data.pkl")]
            if len(parts) != 1 or parts[0].file_size > MAX_PROGRAM_BYTES:
                return set()
            program = archive.read(parts[0])
        named = (
            argument for code, argument, _ in pickletools.genops(program) if code.name == "GLOBAL"
        )
        return {str(name).replace(" ", ".") for name in named}
    except Exception:  # whatever a damaged file does, it is not recognised
        return set()
