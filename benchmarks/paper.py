"""Tables 1 to 4 and both figures of "Beyond the Hard Budget" (arXiv 2606.27321) on one's own data.

    python benchmarks/paper.py --out FOLDER                                     # digits
    python benchmarks/paper.py --out FOLDER --cifar IMAGES --networks WEIGHTS   # and CIFAR-10
    python benchmarks/paper.py --out FOLDER --sets NAME SHARDS E_SHARDS E_NAME  # one's own

By default digits: a ViT, a ConvNet and an MLP-Mixer of timm are trained on the spot, and each one's
latents are compared in the embeddings of the next. With `--cifar`, a folder of images per class
(50,000 are what the results are of), and `--networks`, a folder with resnet20-, resnet32- and
resnet44-cifar10.safetensors: ResNet-20 and -32, compared in those of ResNet-44. `--sets` takes any
folder of shards and the embeddings of another model over the same samples, and may be repeated.

Splits are by sample: train, validation and test 80 / 10 / 10% (digits 60 / 15 / 25%). lambda is the
largest whose validation R2, in the mean of the paired differences over seeds, is at least the
baseline's; lambdas are tried in ascending order until one loses R2 by more than the standard error
of that mean. Only then is the test split looked at. Intervals are 95% t intervals over seeds,
paired with the baseline's where they are of differences. What has been trained is kept in --out,
and a second call goes on where the first was stopped.

Written to --results: paper_runs.csv (a row per autoencoder), paper_tables.csv (means and
intervals), paper_curves.csv, and paper_tables.md; the figures to --figures.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from common import RESULTS
from replication.figures import draw
from replication.records import write
from replication.sets import Pair
from replication.sources import cifar_pairs, digits_pairs
from replication.study import Study, study
from replication.tables import acceptance, rich_table, table_1, table_2, table_3, table_4
from replication.training import VARIANTS, Setting
from rich.console import Console

from lightsae.sae import AuxK

DIGITS = {"d_sae": 256, "epochs": 60, "batch_size": 512}
_WARMUP = "share of the steps over which lambda rises from 0, default 0.8"
_DECAY = "share of the steps over which the learning rate falls to 0 at the end, default 0.2"
_LAMBDAS = "to try of a variant in place of the usual ones"
_RESULTS = "folder of the CSV files, default results/paper"
_TOLERANCE = "R2 that lambda may cost on the validation split, default 0 as in the paper"
TABLES = {
    "R2, monosemanticity and silent latents": table_1,
    "class purity": table_2,
    "truncated probes": table_3,
    "without the batch-active mask": table_4,
    "what is wanted of Reg 1 and Reg 2": acceptance,
}


def main() -> int:
    options = parse()
    console, studies = Console(), []
    for pair, defaults in pairs(options):
        for k in options.k:
            setting = made_setting(options, k, defaults)
            kept = folder(options, pair, setting)
            found = study(
                pair, setting, options.variants, range(options.seeds), kept,
                processes=options.processes, choosing=options.choosing or options.seeds,
                detailed=options.detailed, probe_rows=options.probe_rows, tell=console.print,
                lambdas=options.lambdas, r2_tolerance=options.r2_tolerance,
            )  # fmt: skip
            studies.append(found)
            show(found, console)
            name = f"{pair.name} k {k}".lower().replace(" ", "-")
            draw(found, options.figures / f"paper-{name}.png")
            write(studies, options.results)
    return 0


def pairs(options: argparse.Namespace) -> list[tuple[Pair, dict[str, int]]]:
    """What the study is made on, each with its own defaults."""
    found: list[tuple[Pair, dict[str, int]]] = []
    if options.cifar:
        made = cifar_pairs(options.cifar, options.networks, options.out)
        found += [(pair, {}) for pair in made]
    for name, shards, embeddings, e_name in options.sets:
        found.append((Pair(name, Path(shards), Path(embeddings), e_name), {}))
    if options.digits or not found:
        found += [(pair, DIGITS) for pair in digits_pairs(options.out)]
    return found


def made_setting(options: argparse.Namespace, k: int, defaults: dict[str, int]) -> Setting:
    """The setting of a study: what was asked for, else the set's own, else the usual."""
    asked = {name: getattr(options, name) for name in ("d_sae", "epochs", "batch_size")}
    chosen = defaults | {name: value for name, value in asked.items() if value is not None}
    aux_k = AuxK(dead_after_multiple=options.dead_after_multiple)
    shares = {"warmup_share": options.warmup_share, "decay_share": options.decay_share}
    return Setting(k, aux_k=aux_k, **shares, **chosen)


def folder(options: argparse.Namespace, pair: Pair, setting: Setting) -> Path:
    """Where the autoencoders of a study are kept: another setting, another folder."""
    name = pair.name.lower().replace(" ", "-")
    sizes = f"k{setting.k}-d{setting.d_sae}-e{setting.epochs}-b{setting.batch_size}"
    schedule = (
        f"dead{options.dead_after_multiple:g}-warmup{setting.warmup_share:g}"
        f"-decay{setting.decay_share:g}"
    )
    return options.out / "saes" / name / f"{sizes}-{schedule}"


def show(found: Study, console: Console) -> None:
    """Print every table of a study."""
    seeds = len(found.seeds)
    for title, table in TABLES.items():
        about = f"{found.pair.name}, k = {found.setting.k}, E = {found.pair.e_name}, {seeds} seeds"
        console.print(rich_table(f"{about}: {title}", table(found)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="keeps shards and autoencoders")
    parser.add_argument("--cifar", type=Path, help="CIFAR-10, a folder of images per class")
    parser.add_argument("--networks", type=Path, help="folder with the weights of the ResNets")
    own = ("NAME", "SHARDS", "E_SHARDS", "E_NAME")
    parser.add_argument("--sets", nargs=4, action="append", default=[], metavar=own)
    parser.add_argument("--digits", action="store_true", help="digits beside other sets")
    parser.add_argument("--k", type=int, nargs="+", default=[8, 16], help="default 8 16")
    parser.add_argument("--seeds", type=int, default=5, help="paired seeds, default 5")
    parser.add_argument("--variants", nargs="+", default=["Reg 1", "Reg 2"], choices=VARIANTS)
    parser.add_argument("--d_sae", type=int, help="default 512, digits 256")
    parser.add_argument("--epochs", type=int, help="default 100, digits 60")
    parser.add_argument("--batch_size", type=int, help="default 1024, digits 512")
    parser.add_argument("--dead_after_multiple", type=float, default=AuxK().dead_after_multiple)
    parser.add_argument("--warmup_share", type=float, default=0.8, help=_WARMUP)
    parser.add_argument("--decay_share", type=float, default=0.2, help=_DECAY)
    parser.add_argument("--choosing", type=int, help="seeds that lambda is chosen with, else all")
    parser.add_argument("--r2_tolerance", type=float, default=0.0, help=_TOLERANCE)
    parser.add_argument("--detailed", type=int, default=5, help="seeds of Tables 2 to 4, default 5")
    tried: dict[str, Any] = {"nargs": "+", "action": "append", "default": []}
    parser.add_argument("--lambdas", **tried, metavar="VARIANT LAMBDA", help=_LAMBDAS)
    parser.add_argument("--probe_rows", type=int, default=10_000, help="default 10,000")
    parser.add_argument("--processes", type=int, default=1, help="side by side, default 1")
    parser.add_argument("--results", type=Path, default=RESULTS / "paper", help=_RESULTS)
    parser.add_argument("--figures", type=Path, help="folder of the figures, default --out")
    options = parser.parse_args()
    if options.cifar and not options.networks:
        parser.error("--cifar needs --networks, a folder with the weights of the ResNets")
    options.figures = options.figures or options.out
    options.lambdas = {name: sorted(map(float, tried)) for name, *tried in options.lambdas}
    return options


if __name__ == "__main__":
    sys.exit(main())
