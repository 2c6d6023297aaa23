"""Faults of a folder that was written: a file is gone, cut short, altered or another run's."""

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from fault_kinds.outcomes import TOLD, UNHARMED
from fault_kinds.processes import Child
from fault_kinds.undisturbed import Bench, read_all

from lightsae.errors import LightsaeError


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
