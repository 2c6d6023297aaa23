"""Linear probes on the codes of labelled images: a pass of its own, in one process."""

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor

from lightsae.activations.loading.split_datamodule import SplitDataModule
from lightsae.activations.loading.splits import Split
from lightsae.evaluation.options import EvaluationOptions
from lightsae.evaluation.result import EvaluationResult
from lightsae.evaluation.split_images import SplitImages
from lightsae.metrics import (
    ImageCodes,
    LabelledCodes,
    Pooling,
    k_sparse_probe,
    truncated_probe,
)
from lightsae.metrics.sampled_rows import row_ranks
from lightsae.sae import SparseAutoencoder

_PLACES = (1, 2, 4, 8, 16, 32)


def why_no_probes(data: SplitDataModule | None, images: SplitImages | None) -> str | None:
    """Why probes cannot be fitted, or None if they can.

    Args:
        data: The rows.
        images: The images that the probes are to be tested on.
    """
    if data is None or images is None:
        return "the loader has no training split to fit them on"
    if not data.manifest.has_labels:
        return "there are no class labels"
    if images.labels is None:
        return "labels are not known ahead of the rows"
    if len(np.unique(images.labels)) < 2:
        return "all images are of one class"
    return None


def add_probes(
    result: EvaluationResult,
    sae: SparseAutoencoder,
    data: SplitDataModule,
    split: Split,
    options: EvaluationOptions,
    console: Console,
) -> None:
    """Fit probes on training images, test them on those of a split, and add what they find.

    Codes have 32 latents, whatever the training k, so that curves of several k lie on one another.

    Args:
        result: Gets the scalars probe_auc, probe_top1_at_32, k_sparse_probe_top1_at_1, ... and the
            curves truncated_probe and k_sparse_probe.
        sae: The autoencoder.
        data: The rows.
        split: What the probes are tested on.
        options: How many images they are fitted to, and how tokens are pooled.
        console: Where progress is shown.

    Raises:
        LightsaeError: If a training image has a class that the split's labels do not know.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        train = _codes(sae, data, "train", options.pooling, options.probe_rows, bar)
        test = _codes(sae, data, split, options.pooling, None, bar)
        task = bar.add_task("fit probes", total=2)
        codes = test.values, test.indices, test.labels
        places = [k for k in _PLACES if k <= sae.d_sae]
        truncated = truncated_probe(*codes, train=train, rows=test.rows, k=places)
        bar.advance(task)
        sparse = k_sparse_probe(*codes, train=train, rows=test.rows, k=places)
        bar.advance(task)
    result.scalars |= {
        "probe_auc": float(truncated.auc),
        f"probe_top1_at_{places[-1]}": float(truncated.top1[-1]),
        "probe_converged": int(truncated.converged and sparse.converged),
        "probe_train_images": len(train),
    }
    for k, top1 in zip(sparse.k.tolist(), sparse.top1.tolist(), strict=True):
        result.scalars[f"k_sparse_probe_top1_at_{k}"] = top1
    result.curves["truncated_probe"] = _curve(truncated.k, truncated.top1)
    result.curves["k_sparse_probe"] = _curve(sparse.k, sparse.top1)


def _curve(k: Tensor, top1: Tensor) -> dict[str, list[float]]:
    return {"k": k.tolist(), "top1": top1.tolist()}


@torch.no_grad()
def _codes(
    sae: SparseAutoencoder,
    data: SplitDataModule,
    split: Split,
    pooling: Pooling,
    most: int | None,
    bar: Progress,
) -> LabelledCodes:
    """Codes and classes of the images of a split, or of so many of them, drawn by their number."""
    images = SplitImages.of(data, split)
    assert images.labels is not None
    chosen = _chosen(images, most)
    position = torch.full((len(images),), -1)
    position[chosen] = torch.arange(len(chosen))
    k = min(_PLACES[-1], sae.d_sae)
    codes = ImageCodes(sae.d_sae, pooling=pooling)
    loader = data.split_dataloader(split)
    for batch in bar.track(loader, total=len(loader), description=f"codes of {split}"):
        place = position[images.number(batch.sample_index, batch.token_index)]
        wanted = place >= 0
        if wanted.any():
            x = batch.activations[wanted].to(sae.W_enc)
            code = sae.encode(x, k=k).to("cpu")
            codes.update(code, place[wanted])
    pooled = codes.compute()
    labels = torch.from_numpy(images.labels)[chosen]
    rows = pooled.sample_index[pooled.rows]
    return LabelledCodes(pooled.values, pooled.indices, labels, sae.d_sae, rows=rows)


def _chosen(images: SplitImages, most: int | None) -> Tensor:
    """Numbers of the labelled images that count, ascending."""
    assert images.labels is not None
    labelled = torch.from_numpy(np.flatnonzero(images.labels >= 0))
    if most is None or most >= len(labelled):
        return labelled
    samples = torch.from_numpy(images.samples)[labelled]
    tokens = None if images.tokens is None else torch.from_numpy(images.tokens)[labelled]
    drawn = row_ranks(samples, tokens).argsort(stable=True)[:most]
    return labelled[drawn.sort().values]
