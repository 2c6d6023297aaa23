"""The LightningModule and what a training run needs around it."""

from lightsae.training.checkpoint import AtomicCheckpointIO, read_checkpoint
from lightsae.training.dead import DeadLatentTracker
from lightsae.training.metrics_file import MetricsFile, RewindMetrics
from lightsae.training.module import SAEModule
from lightsae.training.optimizer import SAEAdam
from lightsae.training.quiet import quieten
from lightsae.training.resume_point import ResumePoint
from lightsae.training.schedule import WarmupDecay

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
