"""A plan: every layout of a cluster with its memory, its traffic and its time."""

from lightsae.errors import LightsaeError
from lightsae.planning.calibration import Calibration
from lightsae.planning.devices import Device, device
from lightsae.planning.layouts import (
    Layout,
    changes_of,
    fit_of,
    layouts_of,
    least_ranks,
    link_speeds,
)
from lightsae.planning.result import LayoutPlan, Plan
from lightsae.planning.shape import Shape
from lightsae.planning.step_time import Rates, datasheet_rates, step_time
from lightsae.planning.traffic import traffic_of


def make_plan(
    shape: Shape, gpu: str, *, nodes: int = 1, per_node: int = 1, tokens: int = 0,
    calibration: Calibration | None = None, calibrated_by: str = "a calibration",
) -> Plan:  # fmt: skip
    """Plan a run on a cluster.

    Args:
        shape: The sizes of the run.
        gpu: Name of its devices, or cpu for the machine of the calibration.
        nodes: How many nodes.
        per_node: Devices of each.
        tokens: Rows to train on in all; 0 for no such question.
        calibration: What a machine gives of its ceilings; by default that is assumed.
        calibrated_by: What the plan calls it.

    Raises:
        LightsaeError: If no such GPU is known, the calibration is of another kind, or a size is
            smaller than 1.

    Example:
        >>> shape = Shape(d_in=768, d_sae=1 << 24, k=32, batch=4096, state_dtype="int8")
        >>> plan = make_plan(shape, "H200", nodes=4, per_node=8)
        >>> plan.choice.layout
        Layout(data=8, latent=4)
    """
    shape.checked()
    for name, value in (("nodes", nodes), ("gpus_per_node", per_node)):
        if value < 1:
            raise LightsaeError(f"{name} is {value}, expected at least 1")
    target = _target(gpu, calibration)
    rates = datasheet_rates(target) if calibration is None else calibration.rates_for(target)
    layouts = tuple(
        _planned(shape, layout, target, rates, per_node)
        for layout in layouts_of(nodes * per_node)
        if layout.latent <= shape.d_sae
    )
    chosen = next((place for place, each in enumerate(layouts) if each.fits), None)
    return Plan(
        shape=shape, device=target, nodes=nodes, per_node=per_node, tokens=tokens,
        rates="datasheet" if calibration is None else calibrated_by, layouts=layouts,
        chosen=chosen, least_devices=least_ranks(shape, target),
        changes=() if chosen is not None else changes_of(shape, nodes * per_node, target),
    )  # fmt: skip


def _target(gpu: str, calibration: Calibration | None) -> Device:
    if gpu.lower() != "cpu":
        return device(gpu)
    if calibration is None or calibration.kind != "cpu":
        raise LightsaeError(
            "a CPU has no datasheet here: give --calibration the file that "
            "lightsae plan --calibrate writes on it"
        )
    return calibration.as_device()


def _planned(
    shape: Shape, layout: Layout, target: Device, rates: Rates, per_node: int
) -> LayoutPlan:
    fit = fit_of(shape, layout, target)
    sent = traffic_of(shape, layout.data, layout.latent)
    links = link_speeds(layout, target, per_node)
    step = step_time(shape, layout.latent, target.kind, rates, sent, links)
    rows = shape.batch * shape.accumulate * layout.data
    seconds = sum(each.seconds for each in step)
    return LayoutPlan(layout, fit.memory, fit.fits, sent, step, rows / seconds)
