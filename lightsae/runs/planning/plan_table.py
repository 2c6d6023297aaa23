"""A plan for the terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightsae.planning.result import LayoutPlan, Plan

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def plan_table(plan: Plan) -> RenderableType:
    """The layouts, the parts of the chosen one, and what to change if there is none.

    Args:
        plan: The plan.

    Returns:
        What rich prints.

    Example:
        >>> from rich.console import Console
        >>> from lightsae.planning import Shape, make_plan
        >>> plan = make_plan(Shape(d_in=768, d_sae=1 << 24, k=32, batch=4096), "H200")
        >>> Console(width=100).print(plan_table(plan))  # doctest: +ELLIPSIS
        Estimates, none measured: ...
        ...
        one device ... no ...
        ...
        4 GPUs in place of 1  ...
    """
    parts: list[RenderableType] = [Text(_title(plan)), _layouts(plan)]
    choice = plan.choice
    if choice is None:
        parts += [Text(f"nothing fits into {size(plan.device.memory)}; each of these would:"),
                  _changes(plan)]  # fmt: skip
        return Group(*parts)
    parts += [Text(_chosen(plan, choice)), _memory(choice), _step(choice), _sent(choice)]
    return Group(*parts)


def size(count: float) -> str:
    """Bytes in the unit that suits them.

    Example:
        >>> size(141e9), size(12)
        ('141 GB', '12 B')
    """
    place = 0
    while count >= 999.5 and place < len(_UNITS) - 1:
        count, place = count / 1000, place + 1
    return f"{count:.3g} {_UNITS[place]}"


def duration(seconds: float) -> str:
    """Time in the unit that suits it.

    Example:
        >>> duration(0.0123), duration(7200), duration(30 * 86400)
        ('12.3 ms', '2 h', '30 days')
    """
    for name, length, least in (("days", 86400, 172800), ("h", 3600, 7200), ("s", 1, 0.9995)):
        if seconds >= least:
            return f"{seconds / length:.3g} {name}"
    return f"{1e3 * seconds:.3g} ms"


def _title(plan: Plan) -> str:
    shape, where = plan.shape, f"{plan.nodes} x {plan.per_node} {plan.device.name}"
    return (
        f"Estimates, none measured: {where}, d_in {shape.d_in:,}, d_sae {shape.d_sae:,}, "
        f"k {shape.k}, batch {shape.batch:,} a rank, products in {shape.product}, moments in "
        f"{shape.state_dtype}\nceilings: {plan.device.source}\nefficiencies: "
        + ("assumed" if plan.rates == "datasheet" else f"measured, {plan.rates}")
    )


def _layouts(plan: Plan) -> Table:
    table = _table("layout", "data x latent", "memory a rank", "fits", "sent a step", "step",
                   "rows/s")  # fmt: skip
    for place, each in enumerate(plan.layouts):
        layout = each.layout
        table.add_row(
            layout.name, f"{layout.data} x {layout.latent}", size(each.bytes),
            "yes" if each.fits else "no", size(each.sent_bytes), duration(each.step_seconds),
            f"{each.rows_per_second:,.0f}", style="bold" if place == plan.chosen else "",
        )  # fmt: skip
    return table


def _chosen(plan: Plan, choice: LayoutPlan) -> str:
    layout = choice.layout
    text = f"\n{layout.name}, {layout.data} x {layout.latent}: splits the dictionary least of all "
    text += f"that fit; {plan.least_devices} would hold it"
    if plan.seconds is not None:
        text += f"; {plan.tokens:,} rows take {duration(plan.seconds)}"
    if layout.latent > 1:
        text += "\nit needs a strategy that splits latents over ranks, not Lightning's ddp"
    return text


def _memory(choice: LayoutPlan) -> Table:
    table = _table("memory of a rank", "", "")
    for part in choice.memory:
        table.add_row(part.name, size(part.bytes), "" if part.basis == "formula" else part.basis)
    return table


def _step(choice: LayoutPlan) -> Table:
    table = _table("time of a step", "", "")
    for part in choice.step:
        table.add_row(part.name, duration(part.seconds), part.bound)
    return table


def _sent(choice: LayoutPlan) -> RenderableType:
    if not choice.sent:
        return Text("nothing is exchanged")
    table = _table("sent by a rank in a step", "", "")
    for each in choice.sent:
        table.add_row(each.name, size(each.bytes), f"over {each.over} ranks")
    return table


def _changes(plan: Plan) -> Table:
    table = _table("change", "memory a rank")
    for change in plan.changes:
        table.add_row(change.what, size(change.bytes))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place == 0 else "right", overflow="fold")
    return table
