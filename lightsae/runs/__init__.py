"""A command over a run folder: fit, validate, test, predict, checkpoints and resuming."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.runs.code_writer import CodeWriter, read_codes
    from lightsae.runs.log_filter import quieten
    from lightsae.runs.metrics_file import MetricsFile, RewindMetrics
    from lightsae.runs.resuming.checkpoint_files import AtomicCheckpointIO
    from lightsae.runs.resuming.resume_point import ResumePoint
    from lightsae.runs.run_evaluation import evaluate_run
    from lightsae.training.checkpoints.reading import read_checkpoint
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "AtomicCheckpointIO": ".resuming.checkpoint_files",
            "CodeWriter": ".code_writer",
            "MetricsFile": ".metrics_file",
            "ResumePoint": ".resuming.resume_point",
            "RewindMetrics": ".metrics_file",
            "evaluate_run": ".run_evaluation",
            "quieten": ".log_filter",
            "read_checkpoint": "lightsae.training.checkpoints.reading",
            "read_codes": ".code_writer",
        },
    )

__all__ = [
    "AtomicCheckpointIO",
    "CodeWriter",
    "MetricsFile",
    "ResumePoint",
    "RewindMetrics",
    "evaluate_run",
    "quieten",
    "read_checkpoint",
    "read_codes",
]
