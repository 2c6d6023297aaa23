"""`lightsae plan` against real runs of `lightsae fit` on the CPU: peak memory and time of a step.

    python benchmarks/planning/plan.py
    python benchmarks/planning/plan.py --realtime     # measured processes run under chrt -r 2

Five sizes, each a process that trains for some steps (`fit_worker.py`), and between them the
machine is calibrated. Peaks are of the resident size over what a small run before had left; times
are medians of the steps but the first. Predictions are made from the same configurations, with the
mean over all calibrations. Ends with status 1 if a peak is off by more than 10%, or a step by more
than 25%.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch
import yaml
from rich.console import Console
from rich.table import Table

from lightsae.activations import Manifest, ShardWriter
from lightsae.planning import Calibration, load_calibration, make_plan
from lightsae.runs.log_filter import quieten
from lightsae.runs.planning.fit_config import fit_settings, planned_shape

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import RESULTS, write_rows

MEMORY_GOAL, TIME_GOAL = 0.10, 0.25
ROWS = 16384
Row = dict[str, str | int | float]


class Case(NamedTuple):
    """One run."""

    d_in: int
    d_sae: int
    k: int
    batch: int
    regularizer: str | None = None
    state_dtype: str = "float32"

    @property
    def sizes(self) -> str:
        """As the CSV tells it."""
        text = f"batch={self.batch} d_in={self.d_in} d_sae={self.d_sae} k={self.k}"
        if self.regularizer is not None:
            text += f" regularizer={self.regularizer}"
        return text if self.state_dtype == "float32" else f"{text} moments={self.state_dtype}"


CASES = (
    Case(128, 8192, 32, 1024),
    Case(256, 16384, 32, 1024),
    Case(256, 32768, 16, 512, regularizer="L1L2Ratio"),
    Case(256, 32768, 32, 256, state_dtype="int8"),
    Case(512, 65536, 32, 256),
)
WARM_UP = Case(64, 256, 8, 64)
SMALL = (Case(16, 64, 4, 32), Case(16, 128, 4, 32, regularizer="OffSupportL1"))


class Found(NamedTuple):
    """A prediction beside what was measured: MiB and milliseconds."""

    case: Case
    planned_mib: float
    peak_mib: float
    planned_ms: float
    step_ms: list[float]

    @property
    def memory_error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.planned_mib / self.peak_mib - 1

    @property
    def time_error(self) -> float:
        """Likewise of the median step."""
        return self.planned_ms / median(self.step_ms) - 1


def main() -> int:
    options = parse()
    quieten()
    cases = SMALL if options.small else CASES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        configs = {case: write_case(case, folder, options.steps) for case in (WARM_UP, *cases)}
        calibrations, probes = measured(cases, configs, folder, options)
        found = [predicted(case, configs[case], probes[case], calibrations) for case in cases]
    write_rows(options.out, [row for each in found for row in rows(each, options.threads)])
    Console(width=120).print(table(found))
    worst = [max(abs(getattr(each, name)) for each in found)
             for name in ("memory_error", "time_error")]  # fmt: skip
    return 0 if worst[0] <= MEMORY_GOAL and worst[1] <= TIME_GOAL else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=8, help="of each run, default 8")
    parser.add_argument("--threads", type=int, default=2, help="of torch, default 2")
    parser.add_argument("--realtime", action="store_true", help="measure under chrt -r 2")
    parser.add_argument("--small", action="store_true", help="two tiny runs, one calibration")
    parser.add_argument("--calibration", type=Path, help="take this file, measure none")
    parser.add_argument("--out", type=Path, default=RESULTS / "plan.csv", help="CSV file")
    return parser.parse_args()


def write_case(case: Case, folder: Path, steps: int) -> Path:
    """Its shards and its configuration."""
    shards = folder / f"shards-{case.d_in}"
    if not shards.exists():
        write_shards(shards, case.d_in)
    model: dict[str, Any] = {
        "d_sae": case.d_sae,
        "selection": {"class_path": "lightsae.sae.TopK", "init_args": {"k": case.k}},
        "init_rows": 4096,
        "optimizer": {
            "class_path": "lightsae.training.SAEAdam",
            "init_args": {"lr": 4e-4, "state_dtype": case.state_dtype},
        },
    }
    if case.regularizer is not None:
        made = {"class_path": f"lightsae.sae.{case.regularizer}", "init_args": {"weight": 1e-3}}
        model["regularizer"] = made
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": steps, "max_epochs": -1,
               "log_every_n_steps": 50, "enable_progress_bar": False, "limit_val_batches": 0,
               "enable_checkpointing": False}  # fmt: skip
    data = {"path": str(shards), "batch_size": case.batch, "buffer_rows": ROWS}
    settings = {
        "seed_everything": 0,
        "trainer": trainer,
        "model": {"class_path": "lightsae.training.SAEModule", "init_args": model},
        "data": {"class_path": "lightsae.activations.ActivationDataModule", "init_args": data},
    }
    path = folder / f"{case.sizes.replace(' ', '-')}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def write_shards(folder: Path, d_in: int) -> None:
    """Sparse mixtures of random directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(1024, d_in, generator=generator)
    with ShardWriter(folder, Manifest(d_in=d_in, dtype="float16")) as writer:
        for start in range(0, ROWS, 4096):
            chosen = torch.randint(1024, (4096, 16), generator=generator)
            x = torch.nn.functional.embedding_bag(chosen, directions, mode="mean")
            x += 0.1 * torch.randn(x.shape, generator=generator)
            writer.write(x, sample_index=torch.arange(start, start + 4096))


def measured(
    cases: tuple[Case, ...], configs: dict[Case, Path], folder: Path, options: argparse.Namespace
) -> tuple[list[Calibration], dict[Case, dict[str, Any]]]:
    """Calibrations before, amid and after the runs, and what the runs noted."""
    calibrations, probes = [], {}
    if options.calibration is not None:
        calibrations.append(load_calibration(options.calibration))
    between = {0} if options.small else {0, len(cases) // 2 + 1}
    for place, case in enumerate(cases):
        if options.calibration is None and place in between:
            calibrations.append(calibrated(folder / f"rates-{place}.json", options))
        probes[case] = probed(configs[case], configs[WARM_UP], folder / str(place), options)
    return calibrations, probes


def calibrated(out: Path, options: argparse.Namespace) -> Calibration:
    """This machine by a process of its own."""
    code = f"from lightsae.planning import calibrate; calibrate('cpu', small={options.small}).save"
    run(["-c", f"{code}({str(out)!r})"], options)
    return load_calibration(out)


def probed(config: Path, warm_up: Path, folder: Path, options: argparse.Namespace) -> Any:
    """One run by a process of its own."""
    folder.mkdir()
    worker = Path(__file__).with_name("fit_worker.py")
    run([str(worker), str(warm_up), str(config), str(folder)], options)
    return json.loads((folder / "run.json").read_text())


def run(words: list[str], options: argparse.Namespace) -> None:
    """A process of this Python with so many threads."""
    prefix = ["chrt", "-r", "2"] if options.realtime else []
    threads = str(options.threads)
    found = subprocess.run(
        [*prefix, sys.executable, *words], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    )  # fmt: skip
    if found.returncode:
        raise SystemExit(found.stderr[-2000:])


def predicted(
    case: Case, config: Path, probe: dict[str, Any], calibrations: list[Calibration]
) -> Found:
    """The plan of the same configuration, with each calibration."""
    shape = planned_shape(fit_settings(["--config", str(config)]), None, 0.05)
    plans = [make_plan(shape, "cpu", calibration=each).layouts[0] for each in calibrations]
    return Found(
        case, plans[0].bytes / 2**20, probe["peak_mib"],
        1e3 * mean(each.step_seconds for each in plans),
        [1e3 * each for each in probe["seconds"][1:]],
    )  # fmt: skip


def rows(found: Found, threads: int) -> list[Row]:
    """Of the CSV."""
    common: Row = {"benchmark": "plan", "sizes": found.case.sizes, "dtype": "float32",
                   "device": "cpu", "threads": threads}  # fmt: skip
    took = found.step_ms
    return [
        {**common, "implementation": "plan", "metric": "peak over start", "unit": "MiB",
         "median": round(found.planned_mib, 1)},
        {**common, "implementation": "fit", "metric": "peak over start", "unit": "MiB",
         "median": round(found.peak_mib, 1), "samples": 1},
        {**common, "implementation": "plan", "metric": "step_time", "unit": "ms",
         "median": round(found.planned_ms, 2)},
        {**common, "implementation": "fit", "metric": "step_time", "unit": "ms",
         "median": round(median(took), 2), "low": round(min(took), 2),
         "high": round(max(took), 2), "samples": len(took)},
    ]  # fmt: skip


def table(found: list[Found]) -> Table:
    """For the terminal."""
    view = Table("sizes", "planned MiB", "peak MiB", "off", "planned ms", "step ms", "off")
    for each in found:
        view.add_row(
            each.case.sizes, f"{each.planned_mib:.0f}", f"{each.peak_mib:.0f}",
            f"{100 * each.memory_error:+.0f}%", f"{each.planned_ms:.0f}",
            f"{median(each.step_ms):.0f}", f"{100 * each.time_error:+.0f}%",
        )  # fmt: skip
    return view


if __name__ == "__main__":
    sys.exit(main())
