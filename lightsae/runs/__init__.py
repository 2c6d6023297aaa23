"""A command over a run folder: fit, validate, test, predict, checkpoints and resuming."""

from lightsae.runs.checkpoint_files import AtomicCheckpointIO
from lightsae.runs.code_writer import CodeWriter, read_codes
from lightsae.runs.log_filter import quieten
from lightsae.runs.metrics_file import MetricsFile, RewindMetrics
from lightsae.runs.resume_point import ResumePoint
from lightsae.training.checkpoint_reading import read_checkpoint

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
