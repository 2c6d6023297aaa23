"""`Calibration`: what one machine gives of its ceilings, as a checked JSON file."""

import json
import math
from pathlib import Path
from typing import NamedTuple

from lightsae.errors import LightsaeError
from lightsae.files import write_whole
from lightsae.planning.devices import NETWORK, Device, device_called
from lightsae.planning.step_time import Rates, datasheet_rates
from lightsae.typed_json import plain, read_json, typed

FORMAT = 1
_REQUIRED = ("product.float32", "pass", "copy", "select", "decode", "penalty", "write",
             "update.float32")  # fmt: skip


class Calibration(NamedTuple):
    """What was measured on a machine.

    Attributes:
        device: Its name as the driver or the kernel tells.
        kind: gpu or cpu.
        memory: Bytes of it.
        threads: Of torch; of a CPU all rates depend on it.
        ceilings: FLOP/s of "product.float32" and other dtypes and bytes/s of "copy": of a GPU that
            is known its datasheet's, otherwise what was measured.
        efficiencies: Shares of them; see `Rates`.
        overhead: Seconds of a step beside its parts.
        factor: Of forward and backward pass over the sum of their parts.
        measured: When, in ISO 8601.
        versions: Of torch and others.
    """

    device: str
    kind: str
    memory: int
    threads: int
    ceilings: dict[str, float]
    efficiencies: dict[str, float]
    overhead: float
    factor: float
    measured: str
    versions: dict[str, str]

    def rates_for(self, target: Device) -> Rates:
        """Rates of a device: of a CPU those of this machine, of a GPU its datasheet's by shares.

        Raises:
            LightsaeError: If one is a CPU and the other is not.
        """
        if target.kind != self.kind:
            raise LightsaeError(
                f"the calibration is of a {self.kind}, {self.device}, and says nothing of a "
                f"{target.kind}"
            )
        if self.kind == "cpu":
            return Rates(self.ceilings, self.efficiencies, self.overhead, self.factor)
        rates = datasheet_rates(target, self.efficiencies)
        return rates._replace(overhead=self.overhead, factor=self.factor)

    def as_device(self) -> Device:
        """The machine itself, to plan for."""
        known = device_called(self.device) if self.kind == "gpu" else None
        if known is not None:
            return known
        products = {
            name.partition(".")[2]: value
            for name, value in self.ceilings.items()
            if name.startswith("product.")
        }
        copy = self.ceilings["copy"]
        source = f"measured {self.measured} on {self.device}; links assumed"
        return Device("cpu" if self.kind == "cpu" else self.device, self.kind, self.memory, copy,
                      products, copy / 2, NETWORK, source)  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write it as JSON.

        Args:
            path: The file; its folder is made.

        Raises:
            LightsaeError: If it cannot be written.
        """
        content = {"format": FORMAT, **plain(self)}
        write_whole(Path(path), json.dumps(content, indent=1, allow_nan=False) + "\n")


def load_calibration(path: str | Path) -> Calibration:
    """Read what `Calibration.save` wrote.

    Args:
        path: The file.

    Raises:
        LightsaeError: If it is missing, no calibration, or holds a rate that is not positive.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rates.json"
        >>> path.write_text('{"format": 1, "device": 7}') and None
        >>> load_calibration(path)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: ...rates.json: kind is missing
    """
    found = typed(Calibration, read_json(Path(path), "calibration", FORMAT), str(path))
    if found.kind not in ("cpu", "gpu"):
        raise LightsaeError(f"{path}: kind is {found.kind!r}, expected cpu or gpu")
    if "copy" not in found.ceilings or "product.float32" not in found.ceilings:
        raise LightsaeError(f"{path}: ceilings lack copy or product.float32")
    for name in _REQUIRED:
        if name not in found.efficiencies:
            raise LightsaeError(f"{path}: efficiencies.{name} is missing")
    positive = {"factor": found.factor, "memory": found.memory, "threads": found.threads}
    for group in ("ceilings", "efficiencies"):
        positive |= {f"{group}.{name}": value for name, value in getattr(found, group).items()}
    for name, value in positive.items():
        if not (0 < value < math.inf):
            raise LightsaeError(f"{path}: {name} is {value}, expected more than 0")
    if not 0 <= found.overhead < math.inf:
        raise LightsaeError(f"{path}: overhead is {found.overhead}, expected at least 0")
    return found
