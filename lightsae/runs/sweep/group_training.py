"""Training of one group of a sweep: stacked, kept while it trains, then written as run folders."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, Trainer

from lightsae.runs.metrics_file import MetricsFile
from lightsae.runs.resuming.checkpoint_files import AtomicCheckpointIO
from lightsae.runs.resuming.resume_point import ResumePoint
from lightsae.runs.run_folder import RunFolder
from lightsae.runs.sweep.grid import Point
from lightsae.runs.sweep.member_checkpoint import member_checkpoint
from lightsae.runs.sweep.sweep_file import Result
from lightsae.sae import Regularizer
from lightsae.training.checkpoints.reading import read_checkpoint
from lightsae.training.module import SAEModule
from lightsae.training.stacked import Member, StackedModule

MakeTrainer = Callable[[list[Callback]], Trainer]


@dataclass(frozen=True)
class Group:
    """Autoencoders that train together.

    Attributes:
        points: Which they are.
        settings: Gives the settings of `fit` for one, as plain values.
        make: Builds the module of one, once torch's generator has its seed.
        folder: Where the state is kept while they train.
        members: Folder of their run folders, or None where none are kept.
        probes: Regularizers whose penalty is measured on the validation split besides.
    """

    points: Sequence[Point]
    settings: Callable[[Point], dict[str, Any]]
    make: Callable[[Point], SAEModule]
    folder: Path
    members: Path | None
    probes: Mapping[str, Regularizer]

    def run_folder(self, point: Point) -> RunFolder | None:
        """Where an autoencoder's run is kept."""
        return None if self.members is None else RunFolder(self.members / point.name)


def train_group(
    group: Group, make_trainer: MakeTrainer, data: LightningDataModule, every: int
) -> list[Result]:
    """Train a group from where it stopped, and write the run folders of its autoencoders.

    Args:
        group: What to train.
        make_trainer: Makes a trainer with some callbacks.
        data: Its batches.
        every: Steps between two checkpoints.
    """
    kept = group.folder / "last.ckpt"
    members = [_member(group, point) for point in group.points]
    module = StackedModule(members, group.probes)
    trainer = make_trainer([ResumePoint(kept, every)])
    trainer.fit(module, datamodule=data, ckpt_path=str(kept) if kept.exists() else None)
    step = trainer.global_step
    if module.active:
        make_trainer([]).validate(module, datamodule=data, verbose=False)
    _write_runs(group, members, kept)
    return [
        _result(point, member, step) for point, member in zip(group.points, members, strict=True)
    ]


def forget(group: Group) -> None:
    """Remove the state of a group whose results are kept."""
    shutil.rmtree(group.folder, ignore_errors=True)


def _member(group: Group, point: Point) -> Member:
    run = group.run_folder(point)
    log = None
    if run is not None:
        run.claim(group.settings(point))
        log = MetricsFile(run.metrics)
    return Member.made(point.name, point.seed, lambda: group.make(point), log)


def _write_runs(group: Group, members: Sequence[Member], kept: Path) -> None:
    """Checkpoint and autoencoder of every member that trained to the end."""
    if group.members is None or all(member.failure for member in members):
        return
    content = read_checkpoint(kept)
    for place, (point, member) in enumerate(zip(group.points, members, strict=True)):
        run = group.run_folder(point)
        if run is None or member.failure is not None:
            continue
        AtomicCheckpointIO().save_checkpoint(
            member_checkpoint(content, place, member), run.checkpoint
        )
        member.module.sae.save(run.sae)


def _result(point: Point, member: Member, step: int) -> Result:
    if member.failure is not None:
        return Result(point, "failed", member.failed_at or 0, member.failure)
    found = {name.removeprefix("val/"): value for name, value in member.validation.items()}
    return Result(point, "trained", step, None, found)
