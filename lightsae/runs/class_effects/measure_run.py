"""Effects of a run's latents on the logits of the classifier that its shards came from."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightsae.activations import ActivationDataModule
from lightsae.activations.extraction.extraction_job import usable_device
from lightsae.activations.extraction.image_origin import images_from
from lightsae.activations.extraction.images.batches import image_batches
from lightsae.activations.extraction.images.image_set import ImageSet, load_images
from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.extraction.models import Inputs, ModelOptions
from lightsae.activations.extraction.token_rows import on_device
from lightsae.activations.extraction.token_selection import select_tokens
from lightsae.activations.shards.dtypes import Array
from lightsae.activations.shards.manifest import Manifest
from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.evaluation.comparison.evaluated_run import EvaluatedRun, read_evaluated
from lightsae.evaluation.split_images import SplitImages
from lightsae.interventions import ClassEffects, attach, measure_class_effects
from lightsae.interventions.finding.model_calls import call
from lightsae.interventions.hooks.layer_code import LayerCode
from lightsae.runs.class_effects.shards_model import load_shards_model
from lightsae.sae import SparseAutoencoder, Transcoder

# Of settings of the run's data module, those that decide which rows are in a split.
_SPLITTING = ("val_fraction", "test_fraction", "split_seed")
# A score of fewer rows says little; the gallery leaves such latents out at first, too.
_LEAST_ROWS = 10


def measure_run(
    folder: Path,
    *,
    latents: int | Sequence[int],
    n_random: int,
    amplify: float,
    seed: int,
    batch_size: int,
    device: str,
    model: ModelOptions,
    images: DataOptions,
) -> ClassEffects:
    """Measure class effects over the images of the test split, and keep them in the run folder.

    A latent is looked for and changed at the tokens that the autoencoder was trained on: the class
    token, the patches, or all. Of the mean over patches (pooled) no place of the layer has a code,
    so that it is refused unless the layer itself gives one vector for each image.

    Args:
        folder: A run that `lightsae test` evaluated, on shards of images.
        latents: Which, or how many: those of the highest monosemanticity in the first embedding
            among those that fire on 10 rows or more, without embeddings the most frequent.
        n_random: As for `measure_class_effects`, like the others.
        amplify: Factor.
        seed: Of the controls.
        batch_size: Images, and copies of images, at once.
        device: auto (a GPU if there is one), cpu, cuda, ...
        model: The model, where the shards do not say it.
        images: The images, where the shards do not say them.

    Returns:
        The effects, as in class_effects.safetensors.

    Raises:
        LightsaeError: If the folder is no such run; nothing says which model and images its shards
            are of, or they are others; the model gives no logits; or as `measure_class_effects`.
    """
    run = read_evaluated(folder)
    if not os.access(folder, os.W_OK):
        raise LightsaeError(f"{folder} cannot be written, where the effects are kept")
    sae = _autoencoder(run)
    chosen = chosen_latents(run.result, latents)
    manifest, split = _test_split(run)
    module, layer = load_shards_model(manifest, model)
    source = _images(manifest, images, module)
    place = usable_device(device)
    module, sae = module.to(place), sae.to(place)
    positions = np.flatnonzero(np.isin(source.original_index, split.distinct))
    if len(np.unique(source.original_index[positions])) < len(split.distinct):
        raise LightsaeError(
            f"{source.name}: lacks images of the test split, expected those that the shards were "
            "extracted from"
        )
    one = _some_output(module, layer, sae, _Batches(source, positions[:1], 1, place))
    tokens = _tokens(one, manifest, module, model.prefix_tokens)
    effects = measure_class_effects(
        module, layer, sae, _Batches(source, positions, batch_size, place),
        latents=chosen, amplify=amplify, n_random=n_random, seed=seed, positions=tokens,
        batch_size=batch_size,
    )  # fmt: skip
    effects.save(folder)
    return effects


def chosen_latents(result: EvaluationResult, wanted: int | Sequence[int]) -> list[int]:
    """The latents to measure.

    Args:
        result: The evaluation.
        wanted: Which, or how many.

    Raises:
        LightsaeError: If none fires often enough.

    Example:
        >>> latents = {"firings": torch.tensor([9, 20, 10, 0]),
        ...            "ms/cnn": torch.tensor([0.9, 0.5, 0.6, torch.nan])}
        >>> chosen_latents(EvaluationResult({"d_sae": 4}, latents=latents), 2)
        [2, 1]
        >>> chosen_latents(EvaluationResult({"d_sae": 4}, latents=latents), [3])
        [3]
    """
    if not isinstance(wanted, int):
        return list(wanted)
    firings = result.latents.get("firings")
    if firings is None:
        raise LightsaeError("the evaluation has no firings: run `lightsae test` again")
    named = (tensor for name, tensor in result.latents.items() if name.startswith("ms/"))
    score = next(named, firings).double()
    usable = (firings >= _LEAST_ROWS) & score.isfinite()
    order = torch.where(usable, score, -torch.inf).argsort(descending=True, stable=True)
    found: list[int] = order[: min(wanted, int(usable.sum()))].tolist()
    if not found:
        raise LightsaeError(
            f"no latent fires on {_LEAST_ROWS} rows of the test split: --latents [3, 5] names some"
        )
    return found


def _autoencoder(run: EvaluatedRun) -> SparseAutoencoder:
    """That of the run."""
    path = run.folder / "sae"
    sae = SparseAutoencoder.load(path)
    if isinstance(sae, Transcoder):
        raise LightsaeError(f"{path} is a transcoder, expected an autoencoder")
    if sae.d_sae != run.result.d_sae:
        raise LightsaeError(
            f"{path}: has d_sae = {sae.d_sae}, the evaluation beside it {run.result.d_sae}: "
            "run `lightsae test` again"
        )
    return sae.eval().requires_grad_(False)


def _test_split(run: EvaluatedRun) -> tuple[Manifest, SplitImages]:
    """The manifest of the shards that were evaluated, and the images of their test split."""
    shards = run.result.about.get("shards") or {}
    settings = run.data_settings()
    path = shards.get("path") or settings.get("path")
    if path is None:
        raise LightsaeError(f"{run.folder}: the evaluation names no shards")
    manifest = Manifest.load(path)
    if shards.get("digest") not in (None, manifest.digest()):
        raise LightsaeError(f"{path}: other shards than those evaluated")
    if "layout" in manifest.settings:
        raise LightsaeError(
            f"{path}: was extracted with layout {manifest.settings['layout']!r}; effects are "
            "measured only at layers whose layout is found"
        )
    given = {name: settings[name] for name in _SPLITTING if name in settings}
    data = ActivationDataModule(str(path), readers=0, **given)
    data.setup()
    try:
        return manifest, SplitImages.of(data, "test")
    finally:
        data.teardown()


def _images(manifest: Manifest, given: DataOptions, module: nn.Module) -> ImageSet:
    """The images of the shards, prepared for the model."""
    named = given != DataOptions()
    options = given if named else images_from(manifest, "--images.dataset")
    if options is None:
        raise LightsaeError(
            "the shards do not say which images they are of: give --images.folder, or another "
            "source of images"
        )
    found, _ = load_images(options, module)
    there, expected = manifest.settings.get("data"), manifest.settings.get("images")
    same = found.fingerprint == there or there is None
    if options.dataset is not None:  # whose fingerprint is but a name
        same = len(found) == expected or expected is None
    if not same:
        raise LightsaeError(f"{found.name}: holds other images than the shards were extracted from")
    return found


class _Batches:
    """Images as the model takes them, read anew each time.

    Args:
        images: The images.
        positions: Which of them, int64.
        size: Images at once.
        device: Where they go.
    """

    def __init__(self, images: ImageSet, positions: Array, size: int, device: torch.device) -> None:
        self._images, self._positions, self._size = images, positions, size
        self._device = device

    def __len__(self) -> int:
        return -(-len(self._positions) // self._size)

    def __iter__(self) -> Iterator[Inputs]:
        for batch in image_batches(self._images, self._positions, self._size, workers=0):
            if batch.problems:
                raise LightsaeError(batch.problems[0])
            assert batch.images is not None
            yield on_device(batch.images, self._device)


@torch.no_grad()
def _some_output(
    module: nn.Module, layer: str, sae: SparseAutoencoder, batches: _Batches
) -> LayerCode:
    """The layer on one image, of a model that gives logits."""
    with attach(module, {layer: sae}) as attached, attached.record(activations=True) as recording:
        output: Any = call(module, next(iter(batches)))
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    found = list(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
    # timm's models without a classifier give features of two axes as well.
    headless = getattr(module, "num_classes", None) == 0
    if headless or not isinstance(logits, Tensor) or logits.ndim != 2:
        what = "features" if headless else f"a {found}" if isinstance(found, str) else str(found)
        raise LightsaeError(
            f"the model {type(module).__name__} is no classifier: it gives {what}, expected logits "
            "[B, classes]"
        )
    return recording[layer]


def _tokens(
    seen: LayerCode, manifest: Manifest, module: nn.Module, prefix_tokens: int | None
) -> list[int] | None:
    """Positions of the tokens that the shards have; None for all."""
    if len(seen.lead) == 1 or manifest.tokens == "all":
        return None
    if manifest.tokens == "pooled":
        raise LightsaeError(
            f"the shards hold means over the tokens of {manifest.layer}: no token has a code of "
            "its own that could be changed"
        )
    assert seen.activations is not None
    prefix = prefix_tokens if prefix_tokens is not None else manifest.settings.get("prefix_tokens")
    _, positions = select_tokens(seen.activations, manifest.tokens, module, prefix)
    return [int(position) for position in positions]
