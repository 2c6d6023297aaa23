"""One training step and what it needs: module, optimizer, schedule, dead latents, CUDA graph."""

from importlib import import_module
from typing import Any

from lightsae.training.checkpoints.reading import read_checkpoint
from lightsae.training.dead_latents import DeadLatentTracker
from lightsae.training.module import SAEModule
from lightsae.training.optimizer import SAEAdam
from lightsae.training.schedule import WarmupDecay

# Public names whose home is the room above, which imports this one.
_IN_RUNS = ("AtomicCheckpointIO", "MetricsFile", "ResumePoint", "RewindMetrics", "quieten")

__all__ = [
    "AtomicCheckpointIO",
    "DeadLatentTracker",
    "MetricsFile",
    "ResumePoint",
    "RewindMetrics",
    "SAEAdam",
    "SAEModule",
    "WarmupDecay",
    "quieten",
    "read_checkpoint",
]


def __getattr__(name: str) -> Any:
    """Import a name that moved to `lightsae.runs` when it is first asked for."""
    if name not in _IN_RUNS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("lightsae.runs"), name)


def __dir__() -> list[str]:
    """The names of both rooms."""
    return sorted({*globals(), *_IN_RUNS})
