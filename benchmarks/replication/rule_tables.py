"""Selection rules side by side: tables, and their figures as CSV."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from replication.comparison import Line, line
from replication.fits import SPLITS, Scored
from replication.records import about, intervals, measured, write_csv
from replication.sets import Pair
from replication.step_times import StepTime
from replication.tables import Cells, markdown, short, signed
from replication.training import BASELINE, Fit, Setting

from lightsae.files import replacing


class Compared(NamedTuple):
    """Everything that was found out about some rules on one pair.

    Attributes:
        pair: The shards and their embeddings.
        setting: What all autoencoders share apart from the rule.
        seeds: The paired seeds.
        fits: Without a regularizer and with each, of any seed.
        scored: Every autoencoder by its rule; the first rule is what the others are compared with.
        times: Of a training step, by rule and variant.
    """

    pair: Pair
    setting: Setting
    seeds: Sequence[int]
    fits: Sequence[Fit]
    scored: Mapping[str, Mapping[Fit, Scored]]
    times: Mapping[tuple[str, str], StepTime]


def of_rules(found: Compared) -> Cells:
    """Each rule without a regularizer, and its differences from the first one."""
    first = next(iter(found.scored))
    cells = [["", "validation R2", "R2", f"R2 - {first}'s", "R2 at 2k", "L0", "mean MS",
              "MS, silent as 0", f"MS - {first}'s", "silent", "step time"]]  # fmt: skip
    validation = _plain(found, "validation")
    for rule, each in _plain(found).items():
        figures, less = each.figures, each.differences
        cells.append([
            rule, short(validation[rule].figures["R2"].mean, 4),
            short(figures["R2"].mean, 4), signed(less["R2"]) if less else "",
            short(figures["R2 at 2k"].mean, 4), f"{figures['L0'].mean:.2f}",
            short(figures["mean MS"].mean), short(figures["mean MS, silent as 0"].mean),
            signed(less["mean MS, silent as 0"]) if less else "",
            f"{figures['silent'].mean:.1f}", f"{found.times[rule, BASELINE].median:.2f}",
        ])  # fmt: skip
    return cells


def of_regularizers(found: Compared) -> Cells:
    """Differences that each regularizer makes under each rule."""
    names = ("R2", "R2 at 2k", "MS, scored in both", "mean MS, silent as 0", "silent")
    cells = [["", "", *names[:3], "MS, silent as 0", "silent", "L0", "step time"]]
    for rule, each in _regularized(found):
        differences = [signed(each.differences[name]) for name in names]
        cells.append([
            rule, each.fit.variant, *differences, f"{each.figures['L0'].mean:.2f}",
            f"{found.times[rule, each.fit.variant].median:.2f}",
        ])  # fmt: skip
    return cells


TITLES = {"Rules without a regularizer": of_rules, "What regularizers change": of_regularizers}


def write(found: Compared, folder: Path) -> None:
    """Write rules_runs.csv, rules_tables.csv, rules_step_times.csv and rules_tables.md."""
    write_csv(folder / "rules_runs.csv", _runs(found))
    write_csv(folder / "rules_tables.csv", _means(found))
    write_csv(folder / "rules_step_times.csv", _times(found))
    parts = [f"## {title}\n\n{markdown(table(found))}\n" for title, table in TITLES.items()]
    with replacing(folder / "rules_tables.md") as temporary:
        temporary.write_text("\n".join(parts))


def _plain(found: Compared, split: str = "test") -> dict[str, Line]:
    """Each rule without a regularizer against the first."""
    first = next(iter(found.scored))
    return {
        rule: line(
            Fit(), scored, found.seeds, split, None if rule == first else found.scored[first]
        )
        for rule, scored in found.scored.items()
    }


def _regularized(found: Compared, split: str = "test") -> Iterable[tuple[str, Line]]:
    """Each regularizer against none under the same rule."""
    for rule, scored in found.scored.items():
        for fit in found.fits:
            if fit.variant != BASELINE:
                yield rule, line(fit, scored, found.seeds, split)


def _about(found: Compared, rule: str, fit: Fit) -> dict[str, Any]:
    columns = about(found.pair, found.setting)
    columns |= {"learning_rate": found.setting.learning_rate, "rule": rule}
    return columns | {"variant": fit.variant, "lambda": fit.weight}


def _runs(found: Compared) -> Iterable[dict[str, Any]]:
    for rule, scored in found.scored.items():
        for fit, each in sorted(scored.items()):
            for split, score in each.scores.items():
                columns = {"seed": fit.seed, "split": split, **measured(score)}
                yield _about(found, rule, fit) | columns


def _means(found: Compared) -> Iterable[dict[str, Any]]:
    first = next(iter(found.scored))
    for split in SPLITS:
        plain = [(rule, f"{first} without a regularizer", each)
                 for rule, each in _plain(found, split).items()]  # fmt: skip
        regularized = [(rule, f"{rule} without a regularizer", each)
                       for rule, each in _regularized(found, split)]  # fmt: skip
        for rule, baseline, each in plain + regularized:
            columns = _about(found, rule, each.fit) | {"split": split, "baseline": baseline}
            yield from (columns | row for row in intervals(each))


def _times(found: Compared) -> Iterable[dict[str, Any]]:
    fits = {fit.variant: fit for fit in found.fits}
    for (rule, variant), each in found.times.items():
        yield _about(found, rule, fits[variant]) | {"threads": 1, **each._asdict()}
