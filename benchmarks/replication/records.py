"""Results as CSV: a row per autoencoder, a row per mean and interval, and the curves."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common import machine, versions
from replication.comparison import Line
from replication.scoring import Score
from replication.sets import Pair
from replication.study import Study, mean_curve
from replication.tables import acceptance, markdown, table_1, table_2, table_3, table_4
from replication.training import Setting

from lightsae.files import replacing
from lightsae.metrics import Interval

TITLES = {
    "Table 1: R2, monosemanticity, silent latents": table_1,
    "Table 2: class purity": table_2,
    "Table 3: truncated probes": table_3,
    "Table 4: without the batch-active mask": table_4,
    "Wanted": acceptance,
}


def write(studies: Sequence[Study], folder: Path) -> None:
    """Write paper_runs.csv, paper_tables.csv, paper_curves.csv and paper_tables.md."""
    for name, rows in (("runs", _runs), ("tables", _means), ("curves", _curves)):
        write_csv(folder / f"paper_{name}.csv", [row for s in studies for row in rows(s)])
    with replacing(folder / "paper_tables.md") as temporary:
        temporary.write_text("\n".join(_sections(found) for found in studies))


def _sections(found: Study) -> str:
    setting = found.setting
    lines = [
        f"## {found.pair.name}, k = {setting.k}\n",
        f"MS in the embeddings of {found.pair.e_name}; {len(found.seeds)} seeds; "
        f"d_sae {setting.d_sae}, {setting.epochs} epochs, batch {setting.batch_size}, "
        f"dead after {setting.aux_k.dead_after_rows(setting.d_sae, setting.k):,} rows, "
        f"lambda rises over {setting.warmup_share:g} of the steps, "
        f"the learning rate falls over the last {setting.decay_share:g}.\n",
        *(f"- {choice}" for choice in found.choices.values()),
    ]
    for title, table in TITLES.items():
        cells = table(found)
        if len(cells) > 1:
            lines += [f"\n### {title}\n", markdown(cells)]
    return "\n".join(lines) + "\n"


def about(pair: Pair, setting: Setting) -> dict[str, Any]:
    """Columns that say what was trained on what."""
    return {
        "set": pair.name, "embeddings": pair.e_name, "k": setting.k,
        "d_sae": setting.d_sae, "epochs": setting.epochs, "batch_size": setting.batch_size,
        "warmup_share": setting.warmup_share, "decay_share": setting.decay_share,
        "dead_after_rows": setting.aux_k.dead_after_rows(setting.d_sae, setting.k),
    }  # fmt: skip


def _runs(found: Study) -> Iterable[dict[str, Any]]:
    for fit, scored in sorted(found.scored.items()):
        own = found.details.get(fit.variant, {}).get(fit.seed) if fit.masked else None
        chosen = fit.variant not in found.choices or fit.weight == found.choices[fit.variant].weight
        for split, score in scored.scores.items():
            row = about(found.pair, found.setting) | {"variant": fit.variant, "lambda": fit.weight}
            row |= {"masked": fit.masked, "seed": fit.seed, "split": split}
            row |= measured(score)
            if own is not None and chosen and split == "test":
                row |= {f"purity_{name}": value for name, value in own.purity.items()}
                row |= {f"probe_{name}": value for name, value in own.probe.items()}
            yield row


def _means(found: Study) -> Iterable[dict[str, Any]]:
    for each in [*found.lines, *found.unmasked]:
        columns = about(found.pair, found.setting)
        columns |= {"variant": each.fit.variant, "lambda": each.fit.weight}
        columns |= {"masked": each.fit.masked, "split": "test"}
        if each.fit.variant in found.choices:
            columns["r2_tolerance"] = found.choices[each.fit.variant].r2_tolerance
        yield from (columns | row for row in intervals(each))


def measured(score: Score) -> dict[str, Any]:
    """Columns with what an autoencoder is on one split."""
    names = ("r2", "r2_at_2k", "l0", "dead", "undefined")
    figures = {name: getattr(score, name) for name in names}
    means = {"ms_mean": score.mean_ms, "ms_mean_with_dead_as_zero": score.mean_ms_with_zeros}
    return figures | means


def intervals(found: Line) -> Iterable[dict[str, Any]]:
    """A row for each figure of a variant and for each difference from the baseline."""
    for kind, of in (("figure", found.figures), ("less the baseline's", found.differences)):
        for name, interval in of.items():
            yield {"of": kind, "metric": name, **_interval(interval)}


def _curves(found: Study) -> Iterable[dict[str, Any]]:
    for variant, by_seed in found.details.items():
        profile = mean_curve(by_seed, "profile")
        tried = next(iter(by_seed.values())).k
        curves = {
            "rank profile": zip(range(1, len(profile) + 1), profile, strict=True),
            "NMSE by k": zip(tried, mean_curve(by_seed, "nmse"), strict=True),
            "R2 by k": zip(tried, mean_curve(by_seed, "r2"), strict=True),
        }
        for name, pairs in curves.items():
            for x, y in pairs:
                yield about(found.pair, found.setting) | {
                    "variant": variant, "curve": name, "x": x, "mean": y, "seeds": len(by_seed)
                }  # fmt: skip


def _interval(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high,
            "seeds": interval.seeds}  # fmt: skip


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rows with the columns of all, and those of the versions and the machine."""
    known = {**versions(), "cpu": machine()["cpu"], "cores": machine()["cores"]}
    rows = [{**row, **known} for row in rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _digits(value) for name, value in row.items()} for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue())


def _digits(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
