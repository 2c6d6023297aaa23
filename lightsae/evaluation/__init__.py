"""One trained autoencoder over one split: every metric, what it is measured in, and its files."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.evaluation.evaluate_split import evaluate
    from lightsae.evaluation.naming.check_names import check_names
    from lightsae.evaluation.naming.result import NameChecks
    from lightsae.evaluation.options import EmbeddingOptions, EvaluationOptions
    from lightsae.evaluation.result import EvaluationResult
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "EmbeddingOptions": ".options",
            "EvaluationOptions": ".options",
            "EvaluationResult": ".result",
            "NameChecks": ".naming.result",
            "check_names": ".naming.check_names",
            "evaluate": ".evaluate_split",
        },
    )

__all__ = [
    "EmbeddingOptions",
    "EvaluationOptions",
    "EvaluationResult",
    "NameChecks",
    "check_names",
    "evaluate",
]
