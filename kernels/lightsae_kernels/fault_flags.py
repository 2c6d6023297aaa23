"""Error flags that kernels set on NaN, inf or a wrong index; the host raises later, without a sync.

A flag lies in host memory that the device can write. Kernels write it only when they meet something
wrong, so it costs nothing otherwise. Whoever calls the next operation raises if it is set by then;
`raise_if_flagged` waits for the device and looks.

Until then the host may have queued steps of an optimizer. With the flag goes one number in the
memory of the device, the fault: while it is set, `adam_step_` changes nothing there.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightsae_kernels.argument_checks import ArgumentError

_MESSAGES = {
    "encode_topk": "encode_topk met NaN, inf or an index outside the dictionary on {device}: an "
    "argument has them, or the pre-activations overflow their dtype (scale x down or use a wider "
    "dtype)",
    "sparse_decode": "sparse_decode or sparse_residual met NaN, inf or an index outside the "
    "dictionary on {device}: an argument has them, or the reconstruction overflows its dtype",
}
_OF_ANOTHER = (
    "another process met NaN, inf or an index outside the dictionary on its device; nothing was "
    "updated since on {device}"
)
_flags: dict[tuple[torch.device, str], Tensor] = {}
_faults: dict[torch.device, Tensor] = {}


class Flag(NamedTuple):
    """Where a kernel notes that something is wrong: 1 in both.

    Attributes:
        told: Of one operation, in host memory, int32 [1].
        fault: Of all operations, in the memory of the device, int32 [1].
    """

    told: Tensor
    fault: Tensor


def flag_on(device: torch.device, operation: str) -> Flag:
    """The flag of an operation on a device; raises first if one is set there."""
    _raise_if_set(device)
    if (device, operation) not in _flags:
        # Used in and out of inference mode, and wherever tensors are made by default.
        with torch.inference_mode(False):
            flag = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=device.type == "cuda")
        _flags.setdefault((device, operation), flag)
    return Flag(_flags[device, operation], fault_on(device))


def fault_on(device: torch.device) -> Tensor:
    """What an optimizer looks at on a device, int32 [1]."""
    if device not in _faults:
        with torch.inference_mode(False):
            _faults.setdefault(device, torch.zeros(1, dtype=torch.int32, device=device))
    return _faults[device]


def unwatched(device: torch.device) -> Flag:
    """A flag that nobody looks at."""
    flag = torch.zeros(1, dtype=torch.int32, device=device)
    return Flag(flag, flag)


def raise_if_flagged() -> None:
    """Wait for the devices in use and raise for what their operations have met.

    Call it wherever the host waits anyway: before a checkpoint is written, at the end of an epoch.

    Raises:
        ArgumentError: If NaN, inf or an index outside the dictionary was met since the last call.

    Example:
        >>> raise_if_flagged()
    """
    devices = {device for device, _ in _flags}
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    for device in devices:
        _raise_if_set(device)
        if fault_on(device).item():
            fault_on(device).zero_()
            raise ArgumentError(_OF_ANOTHER.format(device=device))


def raise_where_nothing_waits(device: torch.device) -> None:
    """Raise at once on a device whose kernels have already run: the interpreter's."""
    if device.type == "cpu":
        _raise_if_set(device)


def _raise_if_set(device: torch.device) -> None:
    """One fault may set several flags: the first is told and all are lowered."""
    flags = {name: flag for (where, name), flag in _flags.items() if where == device}
    met = [name for name, flag in flags.items() if flag.item()]
    if met:
        for flag in (*flags.values(), fault_on(device)):
            flag.zero_()
        raise ArgumentError(_MESSAGES[met[0]].format(device=device))
