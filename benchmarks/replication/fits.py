"""Autoencoders that are trained once and kept, and what they score on two splits."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from replication.scoring import Score, score
from replication.sets import Pair
from replication.training import Fit, Setting, train
from safetensors.torch import load_file, save_file

from lightsae.files import replacing
from lightsae.sae import SparseAutoencoder

SPLITS = ("validation", "test")


class Scored(NamedTuple):
    """A fit and its scores by split."""

    fit: Fit
    scores: dict[str, Score]


def scored(pair: Pair, setting: Setting, fit: Fit, out: Path) -> Scored:
    """Train, score and keep an autoencoder, or find it kept."""
    torch.set_num_threads(1)
    folder = out / fit.folder
    if not (folder / "scores.json").exists():
        rows = pair.load()
        sae = train(fit, setting, rows["train"].x)
        sae.save(folder)
        _keep({split: score(sae, rows[split]) for split in SPLITS}, folder)
    return Scored(fit, _kept(folder))


def _keep(scores: dict[str, Score], folder: Path) -> None:
    figures = {
        split: {k: v for k, v in found._asdict().items() if k != "ms"}
        for split, found in scores.items()
    }
    with replacing(folder / "ms.safetensors") as temporary:
        save_file({split: found.ms for split, found in scores.items()}, temporary)
    with replacing(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n")


def _kept(folder: Path) -> dict[str, Score]:
    figures = json.loads((folder / "scores.json").read_text())
    ms = load_file(folder / "ms.safetensors")
    return {split: Score(ms=ms[split], **figures[split]) for split in SPLITS}


def autoencoder(fit: Fit, out: Path) -> SparseAutoencoder:
    """The autoencoder of a fit that is kept."""
    return SparseAutoencoder.load(out / fit.folder)


class Workers:
    """Processes that train side by side.

    Args:
        pair: What on.
        setting: What all share.
        out: Folder that keeps the autoencoders.
        processes: How many at a time.
        done: Called with each fit that is there.
    """

    def __init__(
        self, pair: Pair, setting: Setting, out: Path, processes: int,
        done: Callable[[Scored], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.pair, self.setting, self.out, self.done = pair, setting, out, done
        # A process of its own costs seconds to start.
        spawn = get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, spawn) if processes > 1 else None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def train(self, fits: Iterable[Fit]) -> dict[Fit, Scored]:
        """Scores of some fits, each trained once."""
        found = {}
        for result in self._results(fits):
            found[result.fit] = result
            self.done(result)
        return found

    def _results(self, fits: Iterable[Fit]) -> Iterator[Scored]:
        """As they come."""
        shared = self.pair, self.setting
        if self._pool is None:
            yield from (scored(*shared, fit, self.out) for fit in fits)
            return
        waiting = [self._pool.submit(scored, *shared, fit, self.out) for fit in fits]
        yield from (future.result() for future in as_completed(waiting))
