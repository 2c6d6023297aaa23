"""How the dictionary and the batches may be divided over a cluster, smallest split first.

Data parallel: every rank has the whole dictionary and batches of its own. Latent parallel: all
ranks share one dictionary and one batch. 2-D: groups of latent-parallel ranks, each with batches of
its own; a group is filled within a node first.
"""

from typing import NamedTuple

from lightsae.planning.devices import Device
from lightsae.planning.memory import Part, memory_of, total
from lightsae.planning.shape import Shape

# What is left for fragments and for what no formula knows.
USABLE = 0.9


class Layout(NamedTuple):
    """A division of a cluster.

    Attributes:
        data: Ranks that have batches of their own.
        latent: Ranks that share a dictionary.
    """

    data: int
    latent: int

    @property
    def name(self) -> str:
        """What it is called.

        Example:
            >>> [Layout(*sizes).name for sizes in ((1, 1), (4, 1), (1, 4), (2, 2))]
            ['one device', 'data parallel', 'latent parallel', '2-D']
        """
        if self.data == self.latent == 1:
            return "one device"
        if self.latent == 1:
            return "data parallel"
        return "latent parallel" if self.data == 1 else "2-D"


class Fit(NamedTuple):
    """A layout and what a rank of it holds.

    Attributes:
        layout: The layout.
        memory: Bytes of a rank by part.
        fits: Whether they are at most 0.9 of the device's.
    """

    layout: Layout
    memory: tuple[Part, ...]
    fits: bool


class Change(NamedTuple):
    """What would make a configuration fit, by itself.

    Attributes:
        what: The change.
        bytes: Of a rank after it.
    """

    what: str
    bytes: int


def layouts_of(ranks: int) -> tuple[Layout, ...]:
    """All divisions of so many ranks, those that split the dictionary least first.

    Example:
        >>> [tuple(layout) for layout in layouts_of(4)]
        [(4, 1), (2, 2), (1, 4)]
    """
    return tuple(Layout(ranks // n, n) for n in range(1, ranks + 1) if ranks % n == 0)


def fit_of(shape: Shape, layout: Layout, device: Device) -> Fit:
    """What a rank holds, and whether it has room.

    Example:
        >>> from lightsae.planning.devices import device
        >>> fit_of(Shape(d_in=768, d_sae=8192, k=32, batch=4096), Layout(1, 1), device("H200")).fits
        True
    """
    parts = memory_of(shape, layout.data, layout.latent, device.kind)
    return Fit(layout, parts, total(parts) <= USABLE * device.memory)


def link_speeds(layout: Layout, device: Device, per_node: int) -> dict[str, float]:
    """Bytes a second between the ranks that share a dictionary, and between those that do not.

    Args:
        layout: The layout.
        device: Each of its devices.
        per_node: Devices of a node.

    Example:
        >>> from lightsae.planning.devices import device
        >>> link_speeds(Layout(4, 8), device("H200"), 8)
        {'latent': 450000000000.0, 'data': 50000000000.0}
    """
    within = layout.latent <= per_node and per_node % layout.latent == 0
    together = layout.data * layout.latent <= per_node
    return {
        "latent": device.link if within else device.network,
        "data": device.link if together else device.network,
    }


def changes_of(shape: Shape, ranks: int, device: Device) -> tuple[Change, ...]:
    """What would fit where nothing does: each change alone, with the dictionary split over all.

    Example:
        >>> from lightsae.planning.devices import device
        >>> shape = Shape(d_in=768, d_sae=1 << 24, k=32, batch=4096)
        >>> [change.what for change in changes_of(shape, 2, device("H200"))][-1]
        '4 GPUs in place of 2'
    """
    layout = Layout(1, ranks)
    candidates = [
        ("model.optimizer.state_dtype int8", shape._replace(state_dtype="int8")),
        ("trainer.precision 32-true: no narrow copies", shape._replace(product="float32")),
        ("model.aux_k null", shape._replace(k_aux=0)),
        ("model.regularizer null", shape._replace(regularizer="none")),
    ]
    candidates += [
        (f"data.batch_size {batch:,}", shape._replace(batch=batch))
        for batch in _halves(shape.batch)
    ]
    candidates += [
        (f"model.d_sae {size:,}", shape._replace(d_sae=size))
        for size in _halves(shape.d_sae)
        if size >= shape.k
    ]
    found: dict[str, Change] = {}
    for what, changed in candidates:
        fit, option = fit_of(changed, layout, device), what.split()[0]
        if changed != shape and fit.fits and option not in found:
            found[option] = Change(what, total(fit.memory))
    more = next((n for n in _doubles(ranks) if fit_of(shape, Layout(1, n), device).fits), None)
    if more is not None:
        size = total(fit_of(shape, Layout(1, more), device).memory)
        found["GPUs"] = Change(f"{more} GPUs in place of {ranks}", size)
    return tuple(found.values())


def least_ranks(shape: Shape, device: Device) -> int | None:
    """The fewest devices that hold the dictionary, as a power of two up to 65,536."""
    counts = (1, *_doubles(1))
    return next((n for n in counts if fit_of(shape, Layout(1, n), device).fits), None)


def _halves(size: int) -> list[int]:
    return [size >> n for n in range(1, 20) if size >> n]


def _doubles(size: int) -> list[int]:
    return [size << n for n in range(1, 17) if size << n <= 1 << 16]
