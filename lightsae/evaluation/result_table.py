"""A result as a table for the terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightsae.evaluation.options import OWN_INPUT
from lightsae.evaluation.result import EvaluationResult, Scalar

_RECONSTRUCTION = {
    "r2": "R2",
    "r2_uniform": "R2, mean over dimensions",
    "nmse": "NMSE",
    "loss": "loss",
    "reconstruction": "loss: reconstruction",
    "penalty": "loss: regularizer",
}
_SPARSITY = {
    "l0": "L0",
    "hoyer": "Hoyer",
    "dead": "dead latents",
    "dead_fraction": "share of dead latents",
    "decoder_coherence": "decoder coherence, largest",
    "decoder_coherence_mean": "decoder coherence, mean",
    "uniqueness": "uniqueness of top images",
}
_CLASSES = {
    "purity_binary": "class purity, by firings",
    "purity_weighted": "class purity, by activation",
    "morans_i": "Moran's I of patches",
}
_MS = ("mean", "median", "mean_with_dead_as_zero", "scored", "dead", "undefined")
_PROBES = {
    "probe_auc": "truncated probe, AUC",
    "probe_top1_at_32": "truncated probe, top-1 of 32 latents",
    "k_sparse_probe_top1_at_1": "k-sparse probe, top-1 of 1 latent",
    "k_sparse_probe_top1_at_32": "k-sparse probe, top-1 of 32 latents",
}


def result_table(result: EvaluationResult) -> RenderableType:
    """The figures of a result in groups, and what a reader must know of them.

    Args:
        result: The result.

    Returns:
        What rich prints.

    Example:
        >>> from rich.console import Console
        >>> result = EvaluationResult({"d_sae": 8, "split": "test", "rows": 16}, {"r2": 0.5})
        >>> Console(width=60).print(result_table(result))  # doctest: +ELLIPSIS
        <BLANKLINE>
        test split: 16 rows...
    """
    parts: list[RenderableType] = [Text(""), Text(_heading(result), style="bold")]
    groups = {
        "reconstruction": _rows(result, _RECONSTRUCTION),
        "sparsity": _rows(result, _SPARSITY),
        "interpretability": _rows(result, _CLASSES),
        "probes": _rows(result, _PROBES),
    }
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    for title, rows in groups.items():
        if rows:
            table.add_row(Text(title, style="bold"), "")
            for name, value in rows:
                table.add_row(Text(f"  {name}"), Text(value))
    parts.append(table)
    if result.embedding_names:
        parts += [Text(""), _monosemanticity(result)]
    if OWN_INPUT in result.embedding_names:
        parts.append(
            Text(f"{OWN_INPUT}: measured in the autoencoder's own input, which inflates MS", "dim")
        )
    for note in result.about.get("left_out") or []:
        parts.append(Text(f"left out: {note}", "dim"))
    return Group(*parts)


def _heading(result: EvaluationResult) -> str:
    about = result.about
    parts = [f"{about.get('split')} split: {about.get('rows')} rows"]
    if about.get("images") not in (None, about.get("rows")):
        parts.append(f"{about['images']} images, their tokens pooled by {about.get('pooling')}")
    sizes = ("d_in", "d_out", "d_sae", "k")
    parts += [f"{name} {about[name]}" for name in sizes if about.get(name)]
    parts += [about["selection"]] if about.get("selection") else []
    return ", ".join(parts)


def _rows(result: EvaluationResult, names: dict[str, str]) -> list[tuple[str, str]]:
    return [
        (title, shown(result.scalars[key])) for key, title in names.items() if key in result.scalars
    ]


def _monosemanticity(result: EvaluationResult) -> Table:
    """A line for each embedding, with the latents that its means are of."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("monosemanticity in", overflow="fold")
    for title in ("mean", "median", "dead as 0", "scored", "dead", "undefined"):
        table.add_column(title, justify="right")
    for name in result.embedding_names:
        values = [shown(result.scalars.get(f"ms_{each}/{name}")) for each in _MS]
        table.add_row(Text(name), *values)
    return table


def shown(value: Scalar) -> str:
    """A figure for a table; counts as they are.

    Example:
        >>> shown(0.98765), shown(12), shown(None), shown(1.5e-7)
        ('.9877', '12', '-', '1.5e-07')
    """
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    text = f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
