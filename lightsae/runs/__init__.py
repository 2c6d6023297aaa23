"""A command over a run folder: fit, validate, test, predict, checkpoints and resuming."""

from lightsae.runs.code_writer import CodeWriter, read_codes
from lightsae.runs.log_filter import quieten
from lightsae.runs.metrics_file import MetricsFile, RewindMetrics
from lightsae.runs.resuming.checkpoint_files import AtomicCheckpointIO
from lightsae.runs.resuming.resume_point import ResumePoint
from lightsae.training.checkpoints.reading import read_checkpoint

__all__ = [
    "AtomicCheckpointIO",
    "CodeWriter",
    "MetricsFile",
    "ResumePoint",
    "RewindMetrics",
    "quieten",
    "read_checkpoint",
    "read_codes",
]
