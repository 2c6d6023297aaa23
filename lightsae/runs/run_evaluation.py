"""Evaluate a run folder from Python, without a trainer: what `lightsae test` leaves in it."""

from pathlib import Path
from typing import Any

from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.evaluation import EvaluationResult, evaluate
from lightsae.evaluation.description import described_run
from lightsae.evaluation.embeddings import Embeddings
from lightsae.runs.run_folder import RunFolder, regularizer_of
from lightsae.sae import SparseAutoencoder
from lightsae.training.checkpoints.reading import read_checkpoint


def evaluate_run(
    folder: str | Path, data: SplitDataModule, embeddings: Embeddings, **options: Any
) -> EvaluationResult:
    """Evaluate the autoencoder of a trained run and keep the result in its folder.

    Of many runs over one data set this is much faster than `lightsae test` for each. The loss,
    which only a trainer has, is not among the figures.

    Args:
        folder: The run folder, with `config.yaml`, `checkpoints/last.ckpt` and `sae/`.
        data: The data module that it was trained on.
        embeddings: As for `evaluate`.
        options: The other arguments of `evaluate`.

    Returns:
        The result, as in `evaluation.json`, with regularizer and seed of the run.

    Raises:
        LightsaeError: If the folder does not hold a trained run, and as in `evaluate`.
    """
    run = RunFolder(folder)
    settings = run.settings()
    result = evaluate(SparseAutoencoder.load(run.sae), data, embeddings, **options)
    result.about |= described_run(
        run.path,
        run.checkpoint,
        read_checkpoint(run.checkpoint)["global_step"],
        regularizer_of(settings),
        settings.get("seed_everything"),
    )
    result.save(run.path)
    return result
