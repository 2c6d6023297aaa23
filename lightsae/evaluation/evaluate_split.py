"""`evaluate`: every metric of one autoencoder over one split of its activations."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.loading.activation_batch import (
    ActivationBatch,
    as_activation_batch,
)
from lightsae.activations.loading.loader import ActivationLoader
from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.activations.loading.splits import Split
from lightsae.errors import LightsaeError
from lightsae.evaluation.description import described
from lightsae.evaluation.embeddings import Embeddings, open_embeddings
from lightsae.evaluation.one_pass.one_pass import OnePass
from lightsae.evaluation.one_pass.token_pooling import process_place
from lightsae.evaluation.options import OWN_INPUT, EvaluationOptions
from lightsae.evaluation.probes import add_probes, why_no_probes
from lightsae.evaluation.result import EvaluationResult
from lightsae.evaluation.split_images import SplitImages
from lightsae.metrics import Pooling
from lightsae.sae import SparseAutoencoder, Transcoder


def evaluate(
    sae: SparseAutoencoder,
    data: SplitDataModule | Iterable[Any],
    embeddings: Embeddings = (OWN_INPUT,),
    *,
    split: Split = "test",
    images: DataOptions | None = None,
    probes: bool = False,
    probe_rows: int = 20_000,
    pooling: Pooling = "max",
    rank_rows: int = 2048,
    top_images: int = 16,
    cache: str | Path | None = None,
    show_progress: bool = True,
) -> EvaluationResult:
    """Measure an autoencoder over one split, in one pass over its rows (and one to fit probes).

    Under `torch.distributed` every rank reads its share and gets the result of all rows; probes are
    left to one process.

    Args:
        sae: The autoencoder, on any device.
        data: A data module of shards or of a running model; or any iterable of batches, of which
            the images are unknown. Of a transcoder one with targets.
        embeddings: What monosemanticity is measured in: folders of shards, LIBRARY:NAME of a model,
            `own_input`, `EmbeddingOptions`; or a mapping from names of one's own to these or to
            tensors [n, d_e] with the embedding of sample i in row i.
        split: The split of a data module.
        images: The images of the rows, for models among the embeddings, where shards do not say.
        probes: Fit linear probes to the codes of labelled training images.
        probe_rows: Training images that they are fitted to at most.
        pooling: How an image's tokens become one activation.
        rank_rows: Rows that rank profile and k-robustness are of at most.
        top_images: How many of the strongest images of each latent are kept.
        cache: Folder that keeps what models gave; by default nothing is kept.
        show_progress: Show a progress bar on standard error.

    Returns:
        The result; `save` writes it.

    Raises:
        LightsaeError: If embeddings lack samples of the split, an option cannot be, or the rows
            are not of the autoencoder's width.

    Example:
        >>> from lightsae.sae import TopK
        >>> _ = torch.manual_seed(0)
        >>> sae = SparseAutoencoder(d_in=4, d_sae=8, selection=TopK(2))
        >>> batches = [torch.randn(10, 4), torch.randn(6, 4)]
        >>> result = evaluate(sae, batches, show_progress=False)
        >>> result.about["rows"], result.scalars["l0"]
        (16, 2.0)
    """
    options = EvaluationOptions(
        probes=probes, probe_rows=probe_rows, pooling=pooling, rank_rows=rank_rows,
        top_images=top_images,
    )  # fmt: skip
    module = data if isinstance(data, SplitDataModule) else None
    here = None if module is None else SplitImages.of(module, split)
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch if cache is None else cache)
        opened = open_embeddings(embeddings, here, module, kept, images)
    one_pass = OnePass(sae, here, opened, options)
    console = Console(stderr=True, quiet=not show_progress)
    batches = data if module is None else _share_of(module, split)
    _run(one_pass, sae, batches, console)
    found = one_pass.compute()
    pooled = pooling if one_pass.pools else None
    about = described(sae, module, split, found, opened, pooled)
    about["left_out"] = one_pass.notes
    result = EvaluationResult(about, found.scalars, found.curves, found.latents)
    if probes:
        missing = why_no_probes(module, here)
        if missing is not None:
            raise LightsaeError(f"probes: {missing}")
        assert module is not None
        add_probes(result, sae, module, split, options, console)
    return result


def _share_of(data: SplitDataModule, split: Split) -> ActivationLoader:
    """This rank's rows."""
    rank, world_size = process_place()
    return data.split_dataloader(split, rank=rank, world_size=world_size, targets=True)


@torch.no_grad()
def _run(one_pass: OnePass, sae: SparseAutoencoder, batches: Any, console: Console) -> None:
    """Encode every batch once."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    d_out = sae.d_out if isinstance(sae, Transcoder) else None
    total = len(batches) if hasattr(batches, "__len__") else None
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("evaluate", total=total)
        for given in batches:
            batch = as_activation_batch(given, sae.d_in, d_out)
            batch = ActivationBatch(*(_moved(part, sae.W_enc.device) for part in batch))
            batch = batch._replace(activations=batch.activations.to(sae.W_enc.dtype))
            code = sae.encode(batch.activations)
            one_pass.update(batch, code, sae.decode(code, batch.activations))
            bar.advance(task)


def _moved(part: Any, device: torch.device) -> Any:
    return None if part is None else part.to(device)
