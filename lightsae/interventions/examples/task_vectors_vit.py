"""Stethoscope, not scalpel, on a small vision transformer (arXiv 2605.28649).

A network learns ten classes, of three of which it sees a tenth of the images. Fine-tuned on those
three it learns them and forgets others. Is that better filtered by autoencoders, or put raw into
the layers that they choose?

    python -m lightsae.interventions.examples.task_vectors_vit --seed 0
"""

import copy
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jsonargparse import auto_cli
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from lightsae.errors import LightsaeError
from lightsae.extras import require
from lightsae.files import expanded
from lightsae.interventions.examples.sae_fitting import fit_sae
from lightsae.interventions.examples.task_images import TaskImages, digits, images_of_tar
from lightsae.interventions.finding.collect_features import collect_features
from lightsae.interventions.finding.model_calls import tracked
from lightsae.interventions.task_vectors.experiment import task_vector_experiment
from lightsae.interventions.task_vectors.result import TaskVectorResult
from lightsae.interventions.task_vectors.specificity import layer_specificity
from lightsae.interventions.task_vectors.task_vector import TaskVector
from lightsae.report.figures.chart import draw_chart
from lightsae.report.figures.task_vector_charts import injection_charts
from lightsae.report.task_vector_summary import tell_task_vectors
from lightsae.sae import SparseAutoencoder

_BATCH = 500


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        patch: Side of a patch in pixels.
        depth: Blocks.
        dim: Width of the residual stream.
        batch_size: Images per step.
        base_epochs: Of the base model.
        tuning_epochs: Of the fine-tuning.
        share: Of the task's training images, what the base model sees.
        d_sae: Latents of each autoencoder.
        k: Latents per token.
        sae_epochs: Of the autoencoders.
        latents: Task-specific latents of each layer that count.
        n_layers: Layers to choose.
        draws: Random subspaces and sets of layers.
    """

    patch: int = 4
    depth: int = 8
    dim: int = 64
    batch_size: int = 64
    base_epochs: int = 120
    tuning_epochs: int = 10
    share: float = 0.1
    d_sae: int = 256
    k: int = 8
    sae_epochs: int = 30
    latents: int = 8
    n_layers: int = 2
    draws: int = 40


_OF_TARS = Sizes(
    patch=8, batch_size=128, base_epochs=12, tuning_epochs=2, share=0.4, sae_epochs=1, draws=20
)


def run(data: TaskImages, folder: Path, sizes: Sizes, seed: int = 0) -> TaskVectorResult:
    """Train, fine-tune, fit autoencoders, and make the experiment.

    Args:
        data: The images.
        folder: Gets the autoencoders, task_vectors.json and the figures.
        sizes: How large everything is.
        seed: Of all that is random.

    Returns:
        The experiment.
    """
    torch.manual_seed(seed)
    base = _network(data, sizes)
    _train(base, data, data.base_training(sizes.share), base.parameters(), 1e-3, sizes.base_epochs,
           sizes.batch_size, seed)  # fmt: skip
    tuned = copy.deepcopy(base)
    task = torch.arange(len(data.labels))[data.train]
    _train(tuned, data, task[data.on_task[task]], tuned.get_submodule("blocks").parameters(), 3e-4,
           sizes.tuning_epochs, sizes.batch_size, seed)  # fmt: skip
    layers = [f"blocks.{place}" for place in range(sizes.depth)]
    saes = _autoencoders(base, layers, data, folder, sizes, seed)
    batches = data.images[data.find].split(_BATCH)
    features = collect_features(base, saes, batches)
    specificity = layer_specificity(features, data.on_task[data.find].long(), latents=sizes.latents)
    result = task_vector_experiment(
        base, TaskVector.between(base, tuned, layers), saes, specificity,
        lambda model: _right(model, data), n_layers=sizes.n_layers, draws=sizes.draws, seed=seed,
    )  # fmt: skip
    result.save(folder)
    for chart in injection_charts(result):
        draw_chart(chart, folder / f"{chart.name.rpartition('/')[2]}.png")
    return result


def _network(data: TaskImages, sizes: Sizes) -> nn.Module:
    timm = require("timm.models.vision_transformer", extra="vision")
    _, channels, side, _ = data.images.shape
    network: nn.Module = timm.VisionTransformer(
        img_size=side, patch_size=sizes.patch, in_chans=channels, embed_dim=sizes.dim,
        depth=sizes.depth, num_heads=4, num_classes=int(data.labels.max()) + 1,
    )  # fmt: skip
    return network


def _train(
    network: nn.Module, data: TaskImages, places: Tensor, parameters: Iterable[nn.Parameter],
    lr: float, epochs: int, batch_size: int, seed: int,
) -> None:  # fmt: skip
    """Train some parameters on some images, with noise on the pixels; leaves eval mode on."""
    steps = epochs * -(-len(places) // batch_size)
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for _ in tracked(range(epochs), "epochs", show=True):
        order = torch.randperm(len(places), generator=generator)
        for batch in places[order].split(batch_size):
            images = data.images[batch]
            noise = torch.randn(images.shape, generator=generator)
            loss = F.cross_entropy(network(images + 0.2 * noise), data.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


@torch.no_grad()
def _autoencoders(
    base: nn.Module, layers: list[str], data: TaskImages, folder: Path, sizes: Sizes, seed: int
) -> dict[str, SparseAutoencoder]:
    """An autoencoder of the residual stream after each block, over all tokens."""
    rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    handles = [
        base.get_submodule(layer).register_forward_hook(
            lambda _, __, output, layer=layer: rows[layer].append(output.flatten(0, 1).clone())
        )
        for layer in layers
    ]
    for batch in data.images[data.train].split(_BATCH):
        base(batch)
    for handle in handles:
        handle.remove()
    with torch.enable_grad():
        return {
            layer: fit_sae(
                torch.cat(rows[layer]), folder / "autoencoders" / layer, d_sae=sizes.d_sae,
                k=sizes.k, epochs=sizes.sae_epochs, seed=seed,
            )
            for layer in tracked(layers, "autoencoders", show=True)
        }  # fmt: skip


def _right(model: nn.Module, data: TaskImages) -> Mapping[str, Tensor]:
    """Which test images are named rightly, of the task's classes and of the others."""
    batches = data.images[data.test].split(_BATCH)
    right = torch.cat([model(batch).argmax(1) for batch in batches]) == data.labels[data.test]
    on_task = data.on_task[data.test]
    return {"task": right[on_task], "elsewhere": right[~on_task]}


def main(data: str | None = None, out: str = "task-vectors-vit", seed: int = 0) -> None:
    """Stethoscope, not scalpel: a task vector filtered by autoencoders, or raw where they say.

    Args:
        data: A tar of images with a folder for each class, such as CIFAR-10; digits by default.
        out: Gets a folder for each data set and seed.
        seed: Of all that is random.
    """
    images = digits(seed=seed) if data is None else images_of_tar(data, seed=seed)
    name = "digits" if data is None else Path(data).name.partition(".")[0]
    folder = Path(expanded(out)) / f"{name}-seed-{seed}"
    result = run(images, folder, Sizes() if data is None else _OF_TARS, seed)
    console = Console()
    tell_task_vectors(result, console)
    console.print(f"Figures and task_vectors.json: {folder}", style="dim", highlight=False)


if __name__ == "__main__":
    try:
        auto_cli(main)
    except LightsaeError as error:
        sys.exit(str(error))
