"""Whether runs are seeds of their settings: each of its own, none made of what another is."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from lightsae.errors import LightsaeError
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun
from lightsae.runs.run_folder import RunFolder
from lightsae.sae.save_load import SETTINGS, read_settings


def require_own_seeds(runs: Sequence[EvaluatedRun]) -> None:
    """Refuse two runs of one setting and one seed.

    Args:
        runs: The runs.

    Raises:
        LightsaeError: Naming them.

    Example:
        >>> from pathlib import Path
        >>> from lightsae.evaluation import EvaluationResult
        >>> result = EvaluationResult({"d_sae": 8, "k": 2, "seed": 3})
        >>> require_own_seeds([EvaluatedRun(folder=Path(each), result=result) for each in "ab"])
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: a and b have one setting and one seed, 3
    """
    found: dict[object, EvaluatedRun] = {}
    for run in runs:
        before = found.setdefault((run.variant, run.seed), run)
        if before is not run:
            raise LightsaeError(
                f"{before.folder} and {run.folder} have one setting and one seed, {run.seed}"
            )


def require_independent(runs: Sequence[EvaluatedRun]) -> None:
    """Refuse runs that started as one autoencoder, or were pooled from runs that they share.

    Their latents are the same because they were from the beginning.

    Args:
        runs: Of one setting, with autoencoders.

    Raises:
        LightsaeError: Naming two such runs.
    """
    for one, other in combinations(runs, 2):
        if _origins(one) & _origins(other):
            raise LightsaeError(
                f"{one.folder} and {other.folder} are made of an autoencoder that both started "
                "from: their latents do not come again of themselves"
            )


def _origins(run: EvaluatedRun) -> set[str]:
    """What a run started as: the setting, and of what was pooled the autoencoders' hashes."""
    model = run.config.get("model")
    arguments: Any = (model.get("init_args") if isinstance(model, dict) else None) or {}
    settings = read_settings(RunFolder(run.folder).sae / SETTINGS)
    made: Any = settings.get("provenance", {}).get("made_by")
    pooled = made.get("xxh3") if isinstance(made, dict) else None
    found = {arguments.get("start_from"), *(pooled if isinstance(pooled, list) else ())}
    return {str(each) for each in found if each is not None}
