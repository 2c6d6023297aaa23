"""The folder of a steering: its settings, its arms, and each cell's samples as soon as measured."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.files import replacing
from lightsae.folder_contents import require_no_other
from lightsae.interventions.steering.arms import Arm, Cell, LatentArm, RawArm
from lightsae.interventions.steering.measurement import Measurement
from lightsae.interventions.steering.result import BASELINE, RAW, RECONSTRUCTION
from lightsae.interventions.steering.task import Measured, Split

_ARMS = "arms.safetensors"


class SteeringFolder:
    """Where a steering keeps what it needs to go on.

    Args:
        path: The folder; made if missing.
        settings: What makes the steering what it is, as plain values.

    Raises:
        LightsaeError: If the folder holds something else, or a steering with other settings, whose
            differences are named, or cannot be written. One that ended before latents were found
            holds nothing: its place is taken.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp())
        >>> _ = SteeringFolder(path, {"options": {"kind": "additive"}})
        >>> (path / "arms.safetensors").touch()
        >>> SteeringFolder(path, {"options": {"kind": "clamp"}})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: ... options.kind was 'additive', is 'clamp'; choose another \
folder
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        require_no_other(path, "a steering")
        self._claim(dict(settings))

    def _claim(self, settings: dict[str, Any]) -> None:
        file = self.path / "settings.json"
        before, now = _flat("", _settings(file)), _flat("", settings)
        changed = [
            f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        if not changed:
            return
        if before and self._begun(before):
            raise LightsaeError(
                f"{self.path} holds a steering with other settings: {'; '.join(changed)}; "
                "choose another folder"
            )
        try:
            for cell in self._cells():
                cell.unlink()
            (self.path / "cells").mkdir(parents=True, exist_ok=True)
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(settings, indent=1) + "\n")
        except OSError as error:
            raise LightsaeError(f"{file} cannot be written: {error.strerror}") from error

    def _begun(self, before: Mapping[str, Any]) -> bool:
        """Whether more is kept than what an attempt leaves that ended before it had latents."""
        first = tuple(f"choice-{name.replace(' ', '_')}-" for name in (BASELINE, RECONSTRUCTION))
        steered = any(not cell.name.startswith(first) for cell in self._cells())
        ours = any(key.startswith("options.") for key in before)
        return steered or not ours or (self.path / _ARMS).exists()

    def _cells(self) -> list[Path]:
        return sorted((self.path / "cells").glob("*.safetensors"))

    def arms(self, cells: list[Cell], make: Callable[[], list[Arm]]) -> list[Arm]:
        """The arms that were made before, or those that are made now.

        Args:
            cells: The grid.
            make: Makes them.
        """
        file = self.path / _ARMS
        if not file.exists():
            made = make()
            tensors = {
                f"{place}/{arm.name}/{name}": tensor.contiguous().clone()
                for place, arm in enumerate(made)
                for name, tensor in arm.tensors().items()
            }
            self._save(file, tensors)
            return made
        groups: dict[tuple[int, str], dict[str, Tensor]] = {}
        for key, tensor in _load(file).items():
            place, name, rest = key.split("/", 2)
            groups.setdefault((int(place), name), {})[rest] = tensor
        return [
            RawArm.of_tensors(name, groups[place, name], cells)
            if name == RAW
            else LatentArm.of_tensors(name, groups[place, name])
            for place, name in sorted(groups)
        ]

    def has(self, arm: str, split: Split, cell: Cell) -> bool:
        """Whether a cell was measured."""
        return self._file(arm, split, cell).exists()

    def cell(
        self, arm: str, split: Split, cell: Cell, measure: Callable[[], Measurement]
    ) -> Measurement:
        """What was measured in a cell before, or is measured and kept now, metrics by name.

        Args:
            arm: Its name.
            split: The split.
            cell: Strength and number of latents.
            measure: Measures it.
        """
        file = self._file(arm, split, cell)
        if not file.exists():
            found = {name: _wide(each) for name, each in measure().items()}
            self._save(
                file,
                {
                    f"{part}/{name}": getattr(each, part)
                    for name, each in found.items()
                    for part in Measured._fields
                },
            )
            return dict(sorted(found.items()))
        tensors = _load(file)
        names = sorted(
            key.removeprefix("amounts/") for key in tensors if key.startswith("amounts/")
        )
        return {name: Measured(tensors[f"amounts/{name}"], tensors[f"counts/{name}"])
                for name in names}  # fmt: skip

    def _file(self, arm: str, split: Split, cell: Cell) -> Path:
        name = f"{split}-{arm.replace(' ', '_')}-{cell[0]!r}-{cell[1]}.safetensors"
        return self.path / "cells" / name

    def _save(self, file: Path, tensors: dict[str, Tensor]) -> None:
        try:
            with replacing(file) as temporary:
                save_file(tensors, temporary)
        except (OSError, SafetensorError) as error:
            raise LightsaeError(f"{file} cannot be written: {error}") from error


def digest(module: nn.Module) -> str:
    """Hash of a module's tensors."""
    state = xxhash.xxh3_64()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, Tensor):
            continue
        state.update(name.encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _wide(measured: Measured) -> Measured:
    amounts, counts = (each.detach().cpu().double().contiguous().clone() for each in measured)
    return Measured(amounts, counts)


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise LightsaeError(
            f"{file} cannot be read ({error}): delete it, and it is made again"
        ) from error


def _settings(file: Path) -> Any:
    """What settings.json says; nothing if there is none."""
    try:
        return json.loads(file.read_text()) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise LightsaeError(f"{file} cannot be read: {error}") from error


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, child in value.items():
        found |= _flat(f"{prefix}.{key}" if prefix else str(key), child)
    return found
