"""The tables of scaling laws."""

from math import exp, isfinite, log

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lightsae.planning.scaling import Estimate, Law, ScalingResult
from lightsae.plural import counted

_CAPTION = "95% intervals below; natural logarithms; loss is 1 - R2."


def parameter_table(result: ScalingResult) -> Table:
    """Parameters of the law over n and k.

    Args:
        result: The laws.
    """
    table = _table(f"L = {result.law.formula}", *result.law.parameters)
    table.caption = _CAPTION
    table.add_row(*map(_cell, result.law.parameters.values()))
    return table


def size_table(result: ScalingResult) -> Table:
    """Exponents and irreducible losses at each k: of the joint law, of L(n) and L(C) on their own.

    Args:
        result: The laws.
    """
    table = _table(
        f"At each k, {result.tokens:,} tokens: L(n) = A n^b + E, L(C) = A' C^c + E'",
        "k", "b", "E", "c", "E'", "joint: b", "joint: E",
    )  # fmt: skip
    of_k = {each.k: each.law for each in result.sizes}
    of_compute = {each.k: each.law for each in result.compute}
    for k in sorted({*of_k, *of_compute, *(curve.k for curve in result.curves)}):
        size, compute = of_k.get(k), of_compute.get(k)
        table.add_row(
            str(k), _parameter(size, "beta_n"), _floor(size), _parameter(compute, "beta_c"),
            _floor(compute), *_joint_at(result.law, k),
        )  # fmt: skip
    return table


def held_out_table(result: ScalingResult) -> Table:
    """The largest n, as measured and as the other sizes predict it.

    Args:
        result: The laws, with held-out settings.
    """
    title = f"n = {result.held_out[0].d_sae}, predicted from smaller ones"
    table = _table(title, "k", "measured", "predicted", "error", "within")
    for each in result.held_out:
        inside = each.predicted.low <= each.measured <= each.predicted.high
        error = each.predicted.value / each.measured - 1
        table.add_row(
            str(each.k), _number(each.measured), _cell(each.predicted), f"{error:+.1%}",
            Text("yes" if inside else "no", "" if inside else "red"),
        )  # fmt: skip
    return table


def budget_table(result: ScalingResult) -> Table:
    """What budgets of operations are best spent on.

    Args:
        result: The laws.
    """
    table = _table("Budgets", "FLOPs", "k", "n and tokens", "n", "tokens", "loss", "")
    table.caption = "Of training, see flops_per_token. Beyond: outside of what was measured."
    for each in result.budgets:
        size = each.d_sae
        known = size.low == size.high
        table.add_row(
            f"{each.flops:.3g}", str(each.k), "chosen" if each.split else "tokens as measured",
            Text(f"{size.value:,.0f}") if known else _cell(size), f"{each.tokens:,.0f}",
            _cell(each.loss), Text("beyond" if each.beyond else "", "yellow"),
        )  # fmt: skip
    return table


def law_facts(result: ScalingResult) -> list[str]:
    """Sentences on the fit.

    Args:
        result: The laws.
    """
    law = result.law
    one = law.spread is None
    seeds = "one seed each" if one else f"seeds of a setting differ by {law.spread:.1%}"
    return [
        f"{counted(law.groups, 'setting')}, {counted(law.runs, 'run')}. The law is off by "
        f"{law.error:.1%} (root mean square over settings); {seeds}. "
        f"{law.agreed} of {law.starts} starts end at the same fit."
    ]


def _joint_at(law: Law, k: int) -> tuple[str, str]:
    """Exponent and irreducible loss of the joint law at a k, without intervals."""
    values = {name: each.value for name, each in law.parameters.items()}
    exponent = values["beta_n"] + values.get("gamma", 0.0) * log(k)
    if "zeta" not in values:
        return _number(exponent), "-"
    return _number(exponent), _number(exp(values["zeta"] + values.get("eta", 0.0) * log(k)))


def _parameter(law: Law | None, name: str) -> Text:
    return Text("-") if law is None else _cell(law.parameters[name])


def _floor(law: Law | None) -> Text:
    if law is None or "zeta" not in law.parameters:
        return Text("-")
    return _cell(Estimate(*(exp(each) for each in law.parameters["zeta"])))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
                  title_style="bold", caption_style="dim", title_justify="left")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _cell(estimate: Estimate) -> Text:
    low, high = (_number(each) if isfinite(each) else "?" for each in estimate[1:])
    return Text(_number(estimate.value)).append(f"\n{low} to {high}", "dim")


def _number(value: float) -> str:
    """Three digits.

    Example:
        >>> _number(0.71234), _number(-12.3456), _number(123456.0), _number(0.0)
        ('0.712', '-12.3', '123,456', '0')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
