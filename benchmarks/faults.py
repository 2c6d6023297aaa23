"""What happens to activation shards and runs when something goes wrong, tried many times.

    python benchmarks/faults.py --tries 50 --small_disk /mnt/small

Every fault comes at a random moment of a real `lightsae extract`, or at a random place of a folder
that it wrote. After the first kind the same command is given again, and the folder must be, bit for
bit, that of a run nothing happened to. After the second every value is read: either all are those
that were written, or an error names the file. Anything else is a failure, and the exit code is 1.

A training run is killed three times, and its autoencoder must be that of a run nothing happened to.
For a full disk give a folder on a small file system of its own, such as a tmpfs of 8 MiB.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from common import RESULTS, write_rows
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file

from lightsae.activations import Manifest, ShardSet
from lightsae.cli import main as lightsae_main
from lightsae.errors import LightsaeError

IMAGES = 1500
RESUMED, UNHARMED, TOLD = "resumed, bit for bit", "unharmed, bit for bit", "an error names the file"


def main() -> int:
    options = parse()
    torch.set_num_threads(1)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), chance, options.small_disk)
        found = {
            name: Counter(try_once(bench) for _ in track(range(options.tries), name))
            for name, try_once in faults(bench).items()
        }
    Console().print(table(found))
    write_rows(options.out, rows(found, options))
    return 0 if all(set(counts) <= {RESUMED, UNHARMED, TOLD} for counts in found.values()) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=20, help="of each fault, default 20")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--small_disk", type=Path, help="a folder on a small file system")
    parser.add_argument("--out", type=Path, default=RESULTS / "faults.csv", help="CSV file")
    return parser.parse_args()


class Whole(NamedTuple):
    """A folder that nothing happened to, and how long it took."""

    folder: Path
    digest: str
    seconds: float


class Trained(NamedTuple):
    """The autoencoder of a training run that nothing happened to, and how long it took."""

    weights: bytes
    seconds: float


class Bench:
    """The images, the model and undisturbed folders by one process and by two."""

    def __init__(self, scratch: Path, chance: random.Random, small_disk: Path | None) -> None:
        self.scratch, self.chance, self.small_disk = scratch, chance, small_disk
        shape = (IMAGES, 32, 32, 3)
        np.save(scratch / "images.npy", np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        model = timm.create_model("test_vit", img_size=32)
        save_file(model.state_dict(), scratch / "weights.safetensors")
        self.whole = {world: self.undisturbed(world) for world in (1, 2)}
        run(self.words(scratch / "other", seed=1)).wait()
        (scratch / "fit.yaml").write_text(json.dumps(fit_config(self.whole[1].folder)))
        self.trained = self.undisturbed_training()
        (scratch / "sweep.yaml").write_text(json.dumps(sweep_config(self.whole[1].folder)))
        self.swept = self.undisturbed_sweep()

    def words(self, out: Path, seed: int = 0) -> list[str]:
        """The command."""
        words = ["extract", "--model.name", "test_vit", "--model.pretrained", "false"]
        words += ["--model.weights", str(self.scratch / "weights.safetensors")]
        words += ["--model.arguments", json.dumps({"img_size": 32}), "--layer", "blocks.1"]
        words += ["--data.arrays", str(self.scratch / "images.npy"), "--data.size", "32"]
        words += ["--tokens", "patch", "--rows_per_shard", "600", "--batch_size", "16"]
        return [*words, "--seed", str(seed), "--out", str(out)]

    def undisturbed(self, world: int) -> Whole:
        """Let one process or several write a folder."""
        folder = self.scratch / f"whole-{world}"
        start = time.perf_counter()
        said = [child.wait() for child in self.start(folder, world)]
        seconds = time.perf_counter() - start
        if any(code for code, _ in said):
            raise SystemExit(f"the undisturbed run failed: {said}")
        return Whole(folder, Manifest.load(folder).digest(), seconds)

    def fit_words(self, run_dir: Path) -> list[str]:
        """The command of a training run."""
        words = ["fit", "--config", str(self.scratch / "fit.yaml"), "--run_dir", str(run_dir)]
        return [*words, "--checkpoint_every", "7"]

    def undisturbed_training(self) -> "Trained":
        """Let a training run end."""
        folder = self.scratch / "trained"
        start = time.perf_counter()
        code, text = run(self.fit_words(folder)).wait()
        if code:
            raise SystemExit(f"the undisturbed training failed: {text}")
        return Trained(autoencoder(folder), time.perf_counter() - start)

    def sweep_words(self, run_dir: Path) -> list[str]:
        """The command of a sweep."""
        words = ["sweep", "--config", str(self.scratch / "sweep.yaml"), "--run_dir", str(run_dir)]
        return [*words, "--checkpoint_every", "7"]

    def undisturbed_sweep(self) -> "Trained":
        """Let a sweep end."""
        folder = self.scratch / "swept"
        start = time.perf_counter()
        code, text = run(self.sweep_words(folder)).wait()
        if code:
            raise SystemExit(f"the undisturbed sweep failed: {text}")
        return Trained(autoencoders(folder), time.perf_counter() - start)

    def start(self, out: Path, world: int) -> list["Child"]:
        """Give the command."""
        if world == 1:
            return [run(self.words(out))]
        ranks = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        return [run(self.words(out), {**ranks, "RANK": str(rank)}) for rank in range(world)]

    def moment(self, world: int = 1) -> None:
        """Wait until some moment of a run."""
        time.sleep(self.chance.uniform(0, self.whole[world].seconds))

    def afterwards(self, out: Path, world: int = 1) -> str:
        """Give the command again and compare with the undisturbed folder; removes the folder."""
        said = [child.wait() for child in self.start(out, world)]
        same = not any(code for code, _ in said) and read_all(out) == read_all(
            self.whole[world].folder
        )
        same = same and Manifest.load(out).digest() == self.whole[world].digest
        shutil.rmtree(out)
        return RESUMED if same else f"differs after resuming: {said}"

    def fresh(self) -> Path:
        """A folder to write."""
        return self.scratch / "tried"


class Child(NamedTuple):
    """A process and where it says what it says."""

    pid: int
    stderr: Path

    def wait(self) -> tuple[int, str]:
        """Exit code, or minus the signal, and the last line of what it said."""
        status = os.waitpid(self.pid, 0)[1]
        lines = self.stderr.read_text(errors="replace").strip().splitlines() or [""]
        self.stderr.unlink()
        return os.waitstatus_to_exitcode(status), lines[-1]

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)


def run(words: list[str], environment: dict[str, str] | None = None, clock: float = 0.0) -> Child:
    """Give a command in a process of its own, its clock some seconds wrong."""
    handle, name = tempfile.mkstemp()
    pid = os.fork()
    if pid:
        os.close(handle)
        return Child(pid, Path(name))
    os.dup2(handle, 2)
    os.environ.update(environment or {})
    real = time.time
    time.time = lambda: real() + clock
    try:
        os._exit(lightsae_main(words))
    except SystemExit as error:
        os._exit(int(error.code or 0))
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(70)


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def read_all(folder: Path) -> bytes:
    """Every row and index of a folder, checked while it is read, and its statistics."""
    shards = ShardSet(folder)
    parts = [rows.tobytes() for rows in shards.read_activations(range(len(shards.chunks)))]
    parts += [shards.read_index(chunk).tobytes() for chunk in range(len(shards.chunks))]
    shards.close()
    manifest = shards.manifest
    return b"".join([*parts, json.dumps([manifest.mean, manifest.scale]).encode()])


def fit_config(shards: Path) -> dict[str, object]:
    """Settings of a training run of a few seconds."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return {
        "seed_everything": 0,
        "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 2, **quiet},
        "model": {"class_path": "lightsae.training.SAEModule", "init_args": {"d_sae": 256}},
        "data": {
            "class_path": "lightsae.activations.ActivationDataModule",
            "init_args": {"path": str(shards), "batch_size": 64, "val_fraction": 0.1},
        },
    }


def sweep_config(shards: Path) -> dict[str, object]:
    """Settings of a sweep of two shapes."""
    grid = {"k": [4, 8], "regularizer": ["OffSupportL1", "L1L2Ratio"], "weight": [0.001, 0.01]}
    return {**fit_config(shards), "sweep": grid}


def autoencoders(folder: Path) -> bytes:
    """All weights of a sweep, and what it found."""
    paths = [folder / "sweep.json", *sorted(folder.glob("members/*/sae/sae.safetensors"))]
    return b"".join(path.read_bytes() for path in paths)


def autoencoder(run_dir: Path) -> bytes:
    """The weights that a training run saved."""
    return (run_dir / "sae" / "sae.safetensors").read_bytes()


def faults(bench: Bench) -> dict[str, Callable[[Bench], str]]:
    """What is tried, by name."""
    found: dict[str, Callable[[Bench], str]] = {
        "kill -9 of an extraction": killed,
        "kill -9, and both clocks off by years": killed_and_clock_skewed,
        "kill -9 of one process of two": killed_of_two,
        "kill -9 of a training run, three times": killed_training,
        "kill -9 of a sweep, five times": killed_sweep,
        "two writers in one folder": two_writers,
        "a writer is killed while another begins": killed_while_another_begins,
        "a shard is removed": lambda bench: damaged(bench, lambda path: path.unlink()),
        "a shard is cut short": lambda bench: damaged(bench, cut(bench.chance)),
        "a bit of a shard is flipped": lambda bench: damaged(bench, flip(bench.chance)),
        "a shard is another run's": lambda bench: damaged(
            bench, lambda path: shutil.copy(bench.scratch / "other" / path.name, path)
        ),
        "a bit of the manifest is flipped": lambda bench: damaged(
            bench, flip(bench.chance), "manifest.json"
        ),
    }
    if bench.small_disk is not None:
        found["the disk is full"] = disk_full
    return found


def killed(bench: Bench) -> str:
    child = run(bench.words(bench.fresh()))
    bench.moment()
    child.send(signal.SIGKILL)
    child.wait()
    return bench.afterwards(bench.fresh())


def killed_and_clock_skewed(bench: Bench) -> str:
    years = lambda: bench.chance.uniform(-10, 10) * 3.15e7  # noqa: E731
    child = run(bench.words(bench.fresh()), clock=years())
    bench.moment()
    child.send(signal.SIGKILL)
    child.wait()
    for path in bench.fresh().glob("*"):
        when = time.time() + years()
        os.utime(path, (when, when))
    run(bench.words(bench.fresh()), clock=years()).wait()
    return bench.afterwards(bench.fresh())


def killed_of_two(bench: Bench) -> str:
    """As torchrun does, the other one is asked to end, and killed if it does not listen."""
    children = bench.start(bench.fresh(), 2)
    bench.moment(2)
    bench.chance.shuffle(children)
    children[0].send(signal.SIGKILL)
    children[1].send(signal.SIGTERM)
    killer = threading.Timer(5, children[1].send, [signal.SIGKILL])
    killer.start()
    for child in children:
        child.wait()
    killer.cancel()
    return bench.afterwards(bench.fresh(), 2)


def killed_training(bench: Bench) -> str:
    words = bench.fit_words(bench.fresh())
    for _ in range(3):
        child = run(words)
        time.sleep(bench.chance.uniform(0, bench.trained.seconds))
        child.send(signal.SIGKILL)
        child.wait()
    code, text = run(words).wait()
    same = not code and autoencoder(bench.fresh()) == bench.trained.weights
    shutil.rmtree(bench.fresh())
    return RESUMED if same else f"differs after resuming: {text}"


def killed_sweep(bench: Bench) -> str:
    words = bench.sweep_words(bench.fresh())
    for _ in range(5):
        child = run(words)
        time.sleep(bench.chance.uniform(0, bench.swept.seconds))
        child.send(signal.SIGKILL)
        child.wait()
    code, text = run(words).wait()
    same = not code and autoencoders(bench.fresh()) == bench.swept.weights
    shutil.rmtree(bench.fresh())
    return RESUMED if same else f"differs after resuming: {text}"


def two_writers(bench: Bench) -> str:
    first = run(bench.words(bench.fresh()))
    bench.moment()
    second = run(bench.words(bench.fresh()))
    said = [first.wait(), second.wait()]
    refused = [text for code, text in said if code]
    if len(refused) == 2 or not all(map(told_of_another, refused)):
        return f"unclear: {said}"
    return bench.afterwards(bench.fresh())


def killed_while_another_begins(bench: Bench) -> str:
    """The second knows of nothing that the first wrote after it began."""
    first = run(bench.words(bench.fresh()))
    bench.moment()
    second = run(bench.words(bench.fresh()))
    time.sleep(bench.chance.uniform(0, 0.5))
    first.send(signal.SIGKILL)
    first.wait()
    code, text = second.wait()
    if code and not told_of_another(text):
        return f"unclear: {text}"
    return bench.afterwards(bench.fresh())


def told_of_another(text: str) -> bool:
    told = ("is being written by another process", "is complete already", "another process wrote")
    return any(sentence in text for sentence in told)


def disk_full(bench: Bench) -> str:
    assert bench.small_disk is not None
    out, ballast = bench.small_disk / "tried", bench.small_disk / "ballast"
    child = run(bench.words(out))
    bench.moment()
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    code, text = child.wait()
    ballast.unlink()
    if code and "No space left" not in text and "free some space" not in text:
        return f"unclear: {text}"
    return bench.afterwards(out)


def damaged(bench: Bench, damage: Callable[[Path], object], name: str | None = None) -> str:
    """Damage a file of a copy of the undisturbed folder and read everything, in another process."""
    whole, folder = bench.whole[1].folder, bench.fresh()
    shutil.copytree(whole, folder)
    path = folder / (name or bench.chance.choice(sorted(folder.glob("shard-*.h5"))).name)
    damage(path)
    said = Child(*reading(folder, whole)).wait()
    shutil.rmtree(folder)
    if said[0] == 0:
        return UNHARMED
    return TOLD if said[0] == 3 and path.name in said[1] else f"unclear: {said}"


def reading(folder: Path, whole: Path) -> tuple[int, Path]:
    """A process that reads a folder: 0 if it holds what it should, 3 if an error is told."""
    handle, name = tempfile.mkstemp()
    pid = os.fork()
    if pid:
        os.close(handle)
        return pid, Path(name)
    os.dup2(handle, 2)
    try:
        same = read_all(folder) == read_all(whole)
        print("same" if same else "other values were read", file=sys.stderr, flush=True)
        os._exit(0 if same else 4)
    except LightsaeError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(3)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(70)


def cut(chance: random.Random) -> Callable[[Path], None]:
    """Cut a file short somewhere."""
    return lambda path: os.truncate(path, chance.randrange(path.stat().st_size))


def flip(chance: random.Random) -> Callable[[Path], None]:
    """Flip one bit of a file."""

    def flipped(path: Path) -> None:
        with path.open("r+b", buffering=0) as file:
            place = chance.randrange(path.stat().st_size)
            file.seek(place)
            byte = file.read(1)[0] ^ (1 << chance.randrange(8))
            file.seek(place)
            file.write(bytes([byte]))

    return flipped


def table(found: dict[str, Counter[str]]) -> Table:
    shown = Table("fault", "tries", RESUMED, UNHARMED, TOLD, "anything else")
    for name, counts in found.items():
        good = [counts[kind] for kind in (RESUMED, UNHARMED, TOLD)]
        other = [text for text in counts if text not in (RESUMED, UNHARMED, TOLD)]
        shown.add_row(name, str(counts.total()), *map(str, good), "\n".join(other) or "0")
    return shown


def rows(found: dict[str, Counter[str]], options: argparse.Namespace) -> list[dict[str, object]]:
    """One row of the results for each fault and outcome."""
    return [
        {
            "benchmark": "faults",
            "operation": fault,
            "implementation": "lightsae",
            "sizes": f"images={IMAGES} tries={counts.total()} seed={options.seed}",
            "device": "cpu",
            "metric": outcome if outcome in (RESUMED, UNHARMED, TOLD) else "anything else",
            "median": count,
        }
        for fault, counts in found.items()
        for outcome, count in counts.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
