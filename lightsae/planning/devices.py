"""GPUs by name: memory and ceilings of their datasheets, and what is assumed of the rest.

Products are dense, without sparsity, accumulated in float32. float32 products are those of the
vector units: tf32 is off unless a run asks for it.
"""

import difflib
from typing import NamedTuple

from lightsae.errors import LightsaeError

# Between nodes: one port of 400 Gb/s for each GPU, as in the vendor's own reference designs.
NETWORK = 50e9


class Device(NamedTuple):
    """Ceilings of one device.

    Attributes:
        name: As `--gpu` takes it.
        kind: gpu or cpu.
        memory: Bytes.
        bandwidth: Of its memory, bytes a second.
        products: Floating-point operations a second by dtype.
        link: To another device of the node, bytes a second in one direction.
        network: To another node, bytes a second for each device; assumed.
        source: Where the figures are from.
    """

    name: str
    kind: str
    memory: int
    bandwidth: float
    products: dict[str, float]
    link: float
    network: float
    source: str


def _gpu(
    name: str, memory: float, bandwidth: float, narrow: float, wide: float, link: float, sheet: str
) -> Device:
    products = {"float32": wide * 1e12, "bfloat16": narrow * 1e12, "float16": narrow * 1e12}
    return Device(name, "gpu", round(memory * 1e9), bandwidth * 1e12, products, link * 1e9,
                  NETWORK, f"NVIDIA {sheet} datasheet; network assumed")  # fmt: skip


DEVICES = {
    each.name: each
    for each in (
        _gpu("A100", 80, 2.039, 312, 19.5, 300, "A100 80GB SXM"),
        _gpu("H100", 80, 3.35, 989, 67, 450, "H100 SXM"),
        _gpu("H200", 141, 4.8, 989, 67, 450, "H200 SXM"),
        _gpu("B200", 180, 7.7, 2250, 75, 900, "HGX B200, one of eight"),
    )
}

# What of its datasheet an H200 gives by the notes that the kernels were designed from: a bare
# bf16 product 788 TFLOP/s, a copy 4.3 TB/s. Other GPUs are assumed to give the same shares.
NOTED = {"product": 788 / 989, "copy": 4.3 / 4.8}


def device(name: str) -> Device:
    """A GPU by its name.

    Args:
        name: One of `DEVICES`, in any case.

    Raises:
        LightsaeError: If there is none; names those nearest.

    Example:
        >>> device("h200").memory
        141000000000
        >>> device("H300")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: no GPU 'H300' is known; the closest are H200, H100, B200
    """
    found = DEVICES.get(name.upper())
    if found is not None:
        return found
    near = difflib.get_close_matches(name.upper(), list(DEVICES), n=3, cutoff=0.3)
    told = f"the closest are {', '.join(near)}" if near else f"there are {', '.join(DEVICES)}, cpu"
    raise LightsaeError(f"no GPU {name!r} is known; {told}")


def device_called(name: str) -> Device | None:
    """The device whose name stands in that which a driver tells, such as "NVIDIA H200"."""
    return next((each for key, each in DEVICES.items() if key in name.upper()), None)
