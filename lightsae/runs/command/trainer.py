"""The trainer of a run: what it is given besides its settings, and what it must agree with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, Timer

from lightsae.error_messages import one_line, raised_in
from lightsae.errors import LightsaeError
from lightsae.runs.launch_environment import require_processes
from lightsae.runs.metrics_file import MetricsFile
from lightsae.runs.resuming.checkpoint_files import AtomicCheckpointIO
from lightsae.runs.run_folder import RunFolder
from lightsae.runs.time_limit import TimeLimit


def settings_within(
    run: RunFolder, config: Any, callbacks: list[Callback], *, fitting: bool
) -> dict[str, Any]:
    """Settings in place of the configuration's, with which a trainer writes into a run folder.

    Args:
        run: The folder.
        config: Settings of the trainer.
        callbacks: All that it will have, but the time limit.
        fitting: Whether it trains, or evaluates what was trained.

    Raises:
        LightsaeError: If a callback would write the run's own checkpoint.
    """
    _require_one_last(callbacks, run.checkpoint)
    settings: dict[str, Any] = {
        "default_root_dir": run.path,
        "plugins": [*listed(config.get("plugins")), AtomicCheckpointIO()],
        "callbacks": callbacks,
    }
    if config.get("max_time") is not None and not any(isinstance(c, Timer) for c in callbacks):
        settings["callbacks"] = [*callbacks, TimeLimit(config["max_time"])]
        settings["max_time"] = None
    if config.get("logger") is not False and not config.get("barebones"):
        own = MetricsFile(run.metrics if fitting else run.evaluations)
        given = [] if config.get("logger") is True else listed(config.get("logger"))
        settings["logger"] = [own, *given]
    if not any(isinstance(callback, Checkpoint) for callback in callbacks):
        settings["enable_checkpointing"] = False
    if config.get("enable_model_summary") is None:  # it counts no operation of an autoencoder
        settings["enable_model_summary"] = False
    return settings


def _require_one_last(callbacks: list[Callback], kept: Path) -> None:
    """Two callbacks that write, rename and delete one file would spoil it."""
    folder = kept.parent
    for callback in callbacks:
        if not isinstance(callback, ModelCheckpoint):
            continue
        if not callback.save_last and callback.filename != kept.stem:
            continue
        if Path(callback.dirpath or folder).resolve() == folder.resolve():
            raise LightsaeError(
                f"ModelCheckpoint: {kept} is always kept, leave out save_last "
                "and the filename 'last', or set another dirpath"
            )


@contextmanager
def naming_what_a_launcher_left_out() -> Iterator[None]:
    """Within it, a launcher whose environment Lightning misses becomes one line."""
    try:
        yield
    except (KeyError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not raised_in(error, "lightning"):
            raise
        missing = f"{error.args[0]} is not set by the launcher of this process"
        told = missing if isinstance(error, KeyError) else one_line(str(error))
        raise LightsaeError(told) from error


def require_own_processes(trainer: Trainer, strategy: Any) -> None:
    """Refuse a trainer whose processes are not each a command of their own, or not all there.

    Args:
        trainer: The trainer of the run.
        strategy: What its configuration says.

    Raises:
        LightsaeError: Naming the setting or the variable.
    """
    if getattr(trainer.strategy.launcher, "_start_method", None) == "spawn":
        raise LightsaeError(
            f"trainer.strategy is {strategy!r}, which hands a copy of the "
            "trainer to each process: take ddp, which starts this command once for each"
        )
    require_processes(trainer.world_size, trainer.num_devices)


def listed(value: Any) -> list[Any]:
    """A setting that may be one, several or none, as a list of its own.

    Example:
        >>> listed(None), listed("csv"), listed(["csv", "wandb"])
        ([], ['csv'], ['csv', 'wandb'])
    """
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
