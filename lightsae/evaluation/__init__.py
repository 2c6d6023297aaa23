"""One trained autoencoder over one split: every metric, what it is measured in, and its files."""

from lightsae.evaluation.result import EvaluationResult

__all__ = ["EvaluationResult"]
