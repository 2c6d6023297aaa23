"""What a result says of the autoencoder, the rows and the programs."""

from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.evaluation.embeddings import ImageEmbeddings
from lightsae.evaluation.one_pass.measured import Measured
from lightsae.sae import Regularizer, SparseAutoencoder, Transcoder

_PROGRAMS = ("lightsae", "torch", "lightning", "torchmetrics")


def described(
    sae: SparseAutoencoder,
    data: SplitDataModule | None,
    split: str,
    found: Measured,
    embeddings: list[ImageEmbeddings],
    pooling: str | None,
) -> dict[str, Any]:
    """`about` of a result; what belongs to a run is added by whoever knows it.

    Args:
        sae: The autoencoder.
        data: The rows.
        split: Their split.
        found: What was measured.
        embeddings: In what monosemanticity was measured.
        pooling: How an image's rows became one; None where each has one.
    """
    return {
        "run_dir": None,
        "checkpoint": None,
        "step": None,
        "split": split,
        "rows": found.rows,
        "images": found.images,
        "d_in": sae.d_in,
        "d_out": sae.d_out if isinstance(sae, Transcoder) else None,
        "d_sae": sae.d_sae,
        "k": sae.selection.k,
        "selection": type(sae.selection).__name__,
        "regularizer": None,
        "seed": None,
        "shards": _shards(data),
        "targets": _targets(data) if isinstance(sae, Transcoder) else None,
        "tokens": None if data is None else data.manifest.tokens,
        "classes": [] if data is None else list(data.manifest.classes),
        "embeddings": [each.described(sae.d_in) for each in embeddings],
        "pooling": pooling,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in _PROGRAMS if _is_installed(name)},
    }


def described_regularizer(regularizer: Regularizer | None) -> dict[str, Any] | None:
    """Name and weight of a regularizer.

    Example:
        >>> from lightsae.sae import L1L2Ratio
        >>> described_regularizer(L1L2Ratio(weight=0.1))
        {'name': 'L1L2Ratio', 'weight': 0.1}
    """
    if regularizer is None:
        return None
    weight = getattr(regularizer, "weight", None)
    number = float(weight) if isinstance(weight, int | float | torch.Tensor) else None
    return {"name": type(regularizer).__name__, "weight": number}


def described_run(
    folder: Path,
    checkpoint: Path | str | None,
    step: int | None,
    regularizer: dict[str, Any] | None,
    seed: int | None,
) -> dict[str, Any]:
    """What `about` says of the run that the autoencoder comes from; runs are paired by it.

    Args:
        folder: The run folder.
        checkpoint: Of the weights that were evaluated.
        step: Of that checkpoint.
        regularizer: Its name and weight, or None.
        seed: Of the weights.

    Example:
        >>> described_run(Path("runs/a"), None, 9, {"name": "L1L2Ratio", "weight": 0.1}, 0)["seed"]
        0
    """
    return {
        "run_dir": str(folder),
        "checkpoint": str(checkpoint) if checkpoint else None,
        "step": step,
        "regularizer": regularizer,
        "seed": seed,
    }


def _shards(data: SplitDataModule | None) -> dict[str, Any] | None:
    if data is None:
        return None
    path = getattr(data, "path", None)
    digest = getattr(data, "digest", None)
    return {"path": None if path is None else str(path), "digest": digest}


def _targets(data: SplitDataModule | None) -> dict[str, Any] | None:
    manifest = getattr(data, "target_manifest", None)
    if manifest is None:
        return None
    path = str(getattr(data, "targets", ""))
    return {"path": path, "digest": manifest.digest(), "layer": manifest.layer}


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
