"""`Plan`: what a run would need, as JSON that says of every figure where it is from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, get_type_hints

from lightsae.errors import LightsaeError
from lightsae.files import write_whole
from lightsae.planning.devices import Device
from lightsae.planning.layouts import Change, Layout
from lightsae.planning.memory import Part, total
from lightsae.planning.shape import Shape
from lightsae.planning.step_time import Timed
from lightsae.planning.traffic import Traffic
from lightsae.typed_json import plain, read_json, typed

FORMAT = 1


class LayoutPlan(NamedTuple):
    """One layout.

    Attributes:
        layout: How ranks are divided.
        memory: Bytes of a rank by part.
        fits: Whether a device has room for them.
        sent: Bytes that a rank sends in a step, by purpose.
        step: Seconds of an optimizer step, by part.
        rows_per_second: Of the whole cluster.
    """

    layout: Layout
    memory: tuple[Part, ...]
    fits: bool
    sent: tuple[Traffic, ...]
    step: tuple[Timed, ...]
    rows_per_second: float

    @property
    def bytes(self) -> int:
        """Of a rank."""
        return total(self.memory)

    @property
    def sent_bytes(self) -> int:
        """That a rank sends in a step."""
        return sum(each.bytes for each in self.sent)

    @property
    def step_seconds(self) -> float:
        """Of an optimizer step."""
        return sum(each.seconds for each in self.step)


@dataclass(frozen=True)
class Plan:
    """What a run would need on a cluster; nothing of it has been measured.

    Attributes:
        shape: Sizes of the run.
        device: Each device of the cluster.
        nodes: How many nodes.
        per_node: Devices of each.
        tokens: Rows to train on in all; 0 where no number was given.
        rates: datasheet (efficiencies are assumed), or the file of the calibration.
        layouts: Every division, those that split the dictionary least first.
        chosen: Which of them is the first that fits; None if none does.
        least_devices: The fewest devices that hold the dictionary, a power of two; None if none do.
        changes: What would fit where nothing does.

    Example:
        >>> import tempfile
        >>> from lightsae.planning import Shape, make_plan
        >>> plan = make_plan(Shape(d_in=768, d_sae=8192, k=32, batch=4096), "H200", nodes=4)
        >>> path = Path(tempfile.mkdtemp()) / "plan.json"
        >>> plan.save(path)
        >>> Plan.load(path) == plan
        True
    """

    shape: Shape
    device: Device
    nodes: int
    per_node: int
    tokens: int
    rates: str
    layouts: tuple[LayoutPlan, ...]
    chosen: int | None
    least_devices: int | None
    changes: tuple[Change, ...]

    @property
    def choice(self) -> LayoutPlan | None:
        """The layout that splits the dictionary least and fits."""
        return None if self.chosen is None else self.layouts[self.chosen]

    @property
    def seconds(self) -> float | None:
        """For all tokens, in the chosen layout."""
        if not self.tokens or self.choice is None:
            return None
        return self.tokens / self.choice.rows_per_second

    def save(self, path: str | Path) -> None:
        """Write it as JSON.

        Args:
            path: The file; its folder is made.

        Raises:
            LightsaeError: If it cannot be written.
        """
        content = {"format": FORMAT, "estimate": True, **plain(vars(self)), "totals": _totals(self)}
        write_whole(Path(path), json.dumps(content, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Args:
            path: The file.

        Raises:
            LightsaeError: If it is missing, or no plan of this format; names the key.
        """
        found = read_json(Path(path), "plan", FORMAT)
        found.pop("estimate", None)
        found.pop("totals", None)
        hints = get_type_hints(cls)
        for name in sorted({*hints} ^ {*found}):
            raise LightsaeError(f"{path}: {name} is {'missing' if name in hints else 'unknown'}")
        values = {name: typed(kind, found[name], f"{path}: {name}") for name, kind in hints.items()}
        plan = cls(**values)
        if plan.chosen is not None and not 0 <= plan.chosen < len(plan.layouts):
            raise LightsaeError(f"{path}: chosen is {plan.chosen}, there are {len(plan.layouts)}")
        return plan


def _totals(plan: Plan) -> list[dict[str, Any]]:
    """Sums of every layout, for those who read the JSON."""
    return [
        {"layout": each.layout.name, "bytes": each.bytes, "sent_bytes": each.sent_bytes,
         "step_seconds": each.step_seconds}
        for each in plan.layouts
    ]  # fmt: skip
