"""The first rows of a trainer's loader, where no data module tells the width or gives a sample."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightsae.activations.loading.activation_batch import as_activation_batch
from lightsae.errors import LightsaeError

_LOOPS = {
    TrainerFn.FITTING: ("training", "fit_loop"),
    TrainerFn.VALIDATING: ("validation", "validate_loop"),
    TrainerFn.TESTING: ("test", "test_loop"),
    TrainerFn.PREDICTING: ("predict", "predict_loop"),
}


def widths_of_loader(trainer: Trainer) -> tuple[int, int | None]:
    """The widths of activations and targets of the first batch that a trainer is about to read.

    Raises:
        LightsaeError: If there is none, or reading it here would use it up.
    """
    advice = "give d_in, which it cannot tell beforehand"
    rows, targets = _first_rows(trainer, 1, None, advice)
    return rows.shape[1], None if targets is None else targets.shape[1]


def sample_of_loader(
    trainer: Trainer, most: int, d_in: int, d_out: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """The first rows that a trainer is about to train on, from which scale and centre are set.

    Args:
        trainer: In a fit, before its data are loaded.
        most: Number of rows; fewer if there are no more.
        d_in: Their width.
        d_out: Width of their targets, where they are to have some.

    Returns:
        [rows, d_in], and targets [rows, d_out] or None, of the dtype and on the device that the
        loader delivers.

    Raises:
        LightsaeError: If there is no batch, or reading them here would use them up.
    """
    advice = "set scale and b_dec before, by sae.initialize_ with rows of it"
    rows, targets = _first_rows(trainer, most, d_in, advice, d_out)
    rank_zero_warn(f"scale and b_dec come from the first {len(rows)} rows of the training loader")
    return rows, targets


def _first_rows(
    trainer: Trainer, most: int, d_in: int | None, advice: str, d_out: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Read from the start; afterwards the loader is read from there again, in the same order."""
    name, attribute = _LOOPS[trainer.state.fn]  # type: ignore[index]
    # A LightningModule or a data module that makes the loader, or what was passed to the trainer.
    source = getattr(trainer, attribute)._data_source.dataloader()
    loaders = source if isinstance(source, CombinedLoader) else CombinedLoader(source)
    loader = loaders.flattened[0]
    parts: list[Tensor] = []
    targets: list[Tensor] = []
    with isolate_rng(include_cuda=False), _generators_kept(loader), _position_kept(loader):
        batches = iter(loader)
        if batches is loader:
            raise LightsaeError(f"the {name} loader can be read only once: {advice}")
        while most > 0 and (batch := next(batches, None)) is not None:
            taken = as_activation_batch(batch, d_in, d_out)
            parts.append(taken.activations[:most])
            if taken.targets is not None:
                targets.append(taken.targets[:most])
            most -= len(parts[-1])
        del batches  # It may hold processes or files.
    if not parts:
        raise LightsaeError(f"the {name} loader has no batch")
    return torch.cat(parts), torch.cat(targets) if targets else None


@contextmanager
def _position_kept(loader: Any) -> Iterator[None]:
    """Bring a loader that remembers its position back to where it was."""
    stateful = hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
    before = loader.state_dict() if stateful else None
    try:
        yield
    finally:
        if stateful:
            loader.load_state_dict(before)


@contextmanager
def _generators_kept(loader: Any) -> Iterator[None]:
    """Bring the generators of a loader and its samplers back to where they were."""
    samplers = [getattr(loader, name, None) for name in ("sampler", "batch_sampler")]
    samplers += [getattr(sampler, "sampler", None) for sampler in samplers]
    found = [getattr(owner, "generator", None) for owner in (loader, *samplers)]
    before = [(own, own.get_state()) for own in found if isinstance(own, torch.Generator)]
    try:
        yield
    finally:
        for own, state in before:
            own.set_state(state)
