"""The tables of scaling laws."""

from math import exp, isfinite

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
    """Exponent and irreducible loss at each k: of the law over n and k, and of that k alone.

    Args:
        result: The laws.
    """
    title = f"L(n) = A n^b + E at each k, {result.tokens:,} tokens"
    table = _table(title, "k", "b", "E", "b of that k alone", "E")
    alone = {each.k: each.law for each in result.sizes}
    for each in result.at_k:
        law = alone.get(each.k)
        floor = Text("-") if each.irreducible is None else _cell(each.irreducible)
        table.add_row(str(each.k), _cell(each.exponent), floor, _parameter(law, "beta_n"),
                      _floor(law))  # fmt: skip
    return table


def compute_table(result: ScalingResult) -> Table:
    """Loss over operations at each k.

    Args:
        result: The laws.
    """
    title = f"L(C) = A C^c + E at each k, {result.tokens:,} tokens"
    table = _table(title, "k", "c", "E")
    for each in result.compute:
        table.add_row(str(each.k), _parameter(each.law, "beta_c"), _floor(each.law))
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
