"""Selection rules and nested losses side by side, each without a regularizer and with each.

    python benchmarks/rules.py --out FOLDER --set NAME SHARDS E_SHARDS E_NAME

SHARDS and E_SHARDS are folders of shards over the same samples; monosemanticity is measured in the
embeddings of E_SHARDS. `paper.py` leaves those of CIFAR-10 in its --out. Splits, schedule and
scores are those of `paper.py`; every rule gets the same weights to begin with, batches and lambda
for each seed, and is measured as it is applied to new inputs. Intervals are 95% t intervals of
differences that are paired by seed. What has been trained is kept in --out, and a second call goes
on where the first was stopped.

Steps are timed at the end, one of each after the other on the same batch: processor time with one
thread, with the weights of the first seed as training left them.

Written to --results: rules_runs.csv (a row per autoencoder and split), rules_tables.csv (means and
intervals), rules_step_times.csv and rules_tables.md.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common import RESULTS
from replication.fits import Workers, autoencoder
from replication.rule_tables import TITLES, Compared, write
from replication.rules import RULES
from replication.sets import Pair
from replication.step_times import StepTime, Trained, step_times
from replication.tables import rich_table
from replication.training import VARIANTS, Fit, Setting
from rich.console import Console


def main() -> int:
    options = parse()
    name, shards, embeddings, e_name = options.set
    pair = Pair(name, Path(shards), Path(embeddings), e_name)
    setting = Setting(
        options.k, options.d_sae, options.epochs, options.batch_size, options.learning_rate
    )
    fits = [Fit(), *(Fit(variant, options.weight) for variant in options.variants)]
    found = compare(options, pair, setting, fits)
    console = Console()
    for title, table in TITLES.items():
        console.print(rich_table(f"{pair.name}, k = {setting.k}: {title}", table(found)))
    write(found, options.results)
    return 0


def compare(
    options: argparse.Namespace, pair: Pair, setting: Setting, fits: Sequence[Fit]
) -> Compared:
    """Train what is not kept, score and time it."""
    scored, seeds = {}, range(options.seeds)
    for rule in options.rules:
        kept = folder(options, replace(setting, rule=rule))
        with Workers(pair, replace(setting, rule=rule), kept, options.processes) as workers:
            scored[rule] = workers.train(fit._replace(seed=seed) for seed in seeds for fit in fits)
        print(f"{rule}: {len(scored[rule])} autoencoders", flush=True)
    times = timed(options, pair, setting, fits)
    return Compared(pair, setting, seeds, fits, scored, times)


def timed(
    options: argparse.Namespace, pair: Pair, setting: Setting, fits: Sequence[Fit]
) -> dict[tuple[str, str], StepTime]:
    """Steps of every rule with every regularizer, by those of the first without one."""
    trained = {}
    for rule in options.rules:
        own = replace(setting, rule=rule)
        for fit in fits:
            sae = autoencoder(fit, folder(options, own))
            trained[rule, fit.variant] = Trained(sae, fit, own)
    return step_times(trained, pair.load()["train"].x, options.rounds)


def folder(options: argparse.Namespace, setting: Setting) -> Path:
    """Where the autoencoders of a rule are kept: another setting, another folder."""
    sizes = f"k{setting.k}-d{setting.d_sae}-e{setting.epochs}-b{setting.batch_size}"
    name = "-".join(options.set[0].lower().split())
    rule = "-".join(setting.rule.lower().split())
    return Path(options.out / "rules" / name / f"{sizes}-lr{setting.learning_rate:g}" / rule)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = ("NAME", "SHARDS", "E_SHARDS", "E_NAME")
    parser.add_argument("--out", type=Path, required=True, help="keeps autoencoders")
    parser.add_argument("--set", nargs=4, required=True, metavar=own, help="two folders of shards")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--variants", nargs="*", default=["Reg 1", "Reg 2"], choices=VARIANTS)
    parser.add_argument("--k", type=int, default=8, help="default 8")
    parser.add_argument("--d_sae", type=int, default=512, help="default 512")
    parser.add_argument("--epochs", type=int, default=100, help="default 100")
    parser.add_argument("--batch_size", type=int, default=1024, help="default 1024")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of Adam, default 1e-3")
    parser.add_argument("--weight", type=float, default=3e-4, help="lambda, default 3e-4")
    parser.add_argument("--seeds", type=int, default=3, help="paired seeds, default 3")
    parser.add_argument("--rounds", type=int, default=60, help="steps that are timed, default 60")
    parser.add_argument("--processes", type=int, default=1, help="side by side, default 1")
    parser.add_argument("--results", type=Path, default=RESULTS / "paper", help="folder of files")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
