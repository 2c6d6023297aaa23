"""One run of `lightsae fit` in this process: `fit_worker.py WARM_UP.yaml CONFIG.yaml FOLDER`.

A small run comes first: what it imports, and what torch and the C library keep, is there at the
start. Writes FOLDER/probe.json: seconds of every step, and the peak over that start.
"""

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

sys.path.insert(0, str(Path(__file__).parents[1]))
from peers.resident_size import reset_peak, resident_mib


class Probe(Callback):
    """Notes when steps end, and how large the process was at most.

    Args:
        out: The file to write.
        start_mib: Resident size before the run.
        resettable: Whether the peak counts from there.
    """

    def __init__(self, out: str) -> None:
        gc.collect()
        self.out, self.marks = Path(out), [0.0]
        self.resettable, self.start = reset_peak(), resident_mib("VmRSS")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What building and initialising took."""
        self.built = resident_mib("VmHWM") - self.start

    def on_train_batch_end(self, *args: Any) -> None:
        """A step is over."""
        self.marks.append(time.perf_counter())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what was seen."""
        seconds = [b - a for a, b in zip(self.marks[1:], self.marks[2:], strict=False)]
        peak = resident_mib("VmHWM") - self.start if self.resettable else None
        dead = float(pl_module.dead_latents.dead(pl_module.dead_after).float().mean())
        found = {"seconds": seconds, "peak_mib": peak, "built_mib": self.built, "dead": dead}
        self.out.write_text(json.dumps(found))


def main() -> None:
    from lightsae.cli import main as lightsae

    sys.modules["fit_worker"] = sys.modules["__main__"]
    warm_up, config, folder = sys.argv[1:]
    for name, given in (("warm_up", warm_up), ("run", config)):
        out = Path(folder) / f"{name}.json"
        callback = {"class_path": "fit_worker.Probe", "init_args": {"out": str(out)}}
        status = lightsae(
            ["fit", "--config", given, "--run_dir", str(Path(folder) / name),
             "--trainer.callbacks", json.dumps([callback])]
        )  # fmt: skip
        if status:
            raise SystemExit(status)


if __name__ == "__main__":
    main()
