"""What the page's gallery knows of the latents of a run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from torch import Tensor

from lightsae.activations import ActivationDataModule, Manifest
from lightsae.activations.loading.splits import Split
from lightsae.activations.shards.dtypes import Array
from lightsae.dictionaries import LatentNames
from lightsae.errors import LightsaeError
from lightsae.interventions import ClassEffects
from lightsae.report.latents.examples import Examples, choose_examples, strongest
from lightsae.report.latents.firing_pass import (
    Firings,
    drawn_images,
    firing_pass,
    split_index,
)
from lightsae.report.latents.heat_maps import HeatMaps, heat_maps, patch_grid
from lightsae.report.latents.image_keys import has_copies, image_keys
from lightsae.report.latents.neighbours import (
    Neighbours,
    nearest_by_co_firing,
    nearest_by_decoder,
)
from lightsae.report.page.class_effects import read_class_effects
from lightsae.report.reading.latent_names import read_names
from lightsae.report.reading.run_inputs import RunInputs
from lightsae.sae import SparseAutoencoder

_BATCH_ROWS = 2048
# Of settings of the run's data module, those that decide which rows are in a split.
_SPLITTING = ("val_fraction", "test_fraction", "split_seed")

Tick = Callable[[int], object]
Progress = Callable[[str, int], Tick]


@dataclass
class LatentData:
    """The latents of a run.

    Attributes:
        run: The run.
        examples: Images that stand for each latent, or None.
        firings: Where latents fire, or None without shards.
        maps: Heat maps, or None where rows are no patches.
        decoder: W_dec, or None without an autoencoder.
        manifest: That of the shards, or None.
        near: Nearest latents by decoder, or None.
        together: Latents that fire together, or None.
        effects: What latents do to a classifier, or None.
        names: What they are called, or None.
        notes: What is missing and why, a line each.
    """

    run: RunInputs
    examples: Examples | None = None
    firings: Firings | None = None
    maps: HeatMaps | None = None
    decoder: Tensor | None = None
    manifest: Manifest | None = None
    near: Neighbours | None = None
    together: Neighbours | None = None
    effects: ClassEffects | None = None
    names: LatentNames | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def named_classes(self) -> list[str]:
        """Names of the classes, as far as they have some."""
        return [] if self.manifest is None else self.manifest.classes

    @property
    def classes(self) -> list[str]:
        """Names of the classes, numbers where they have none."""
        named = self.named_classes
        labels = None if self.firings is None else self.firings.labels
        main = self.run.result.latents.get("main_class")
        most = max(
            -1 if labels is None else int(labels.max(initial=-1)),
            -1 if main is None or main.dtype.is_floating_point else int(main.max()),
        )
        return [*named, *(str(number) for number in range(len(named), most + 1))]

    def labels_of(self, keys: Array) -> Array:
        """Class of each image, -1 where it is not known."""
        labels: Array = np.full(len(keys), -1, np.int64)
        if self.firings is not None and self.firings.labels is not None and len(keys):
            known = self.firings.keys
            places = np.searchsorted(known, keys).clip(max=len(known) - 1)
            found = known[places] == keys
            labels[found] = self.firings.labels[places[found]]
        return labels


def read(run: RunInputs, *, top: int, between: int, progress: Progress) -> LatentData:
    """Read the autoencoder and the rows of a run.

    Args:
        run: The run.
        top: Strongest images of each latent.
        between: Images of the middle, and weakest ones.
        progress: Begins a bar of a title and a total, and gives what moves it.

    Returns:
        As much as the files allow; `notes` say what is missing.
    """
    data = LatentData(run)
    latents = run.result.latents
    if _has_strongest(run):
        tokens = latents.get("top_tokens")
        keys = image_keys(
            latents["top_samples"].numpy(), None if tokens is None else tokens.numpy()
        )
        data.examples = strongest(keys, latents["top_values"], top)
    sae = _autoencoder(data)
    if sae is not None:
        data.decoder = sae.W_dec.detach()
        data.near = nearest_by_decoder(data.decoder)
        data.effects = _class_effects(data, sae)
        data.names = _names(data, sae)
        module = _data_module(data)
        if module is not None:
            try:
                _read_rows(data, sae, module, top, between, progress)
            finally:
                module.teardown()
    return data


def _has_strongest(run: RunInputs) -> bool:
    """Whether the evaluation has the strongest images of each latent, [d_sae, n]."""
    found = [run.result.latents.get(name) for name in ("top_samples", "top_values")]
    return all(each is not None and each.dim() == 2 for each in found)


def _autoencoder(data: LatentData) -> SparseAutoencoder | None:
    """That of the run, if it is there and of the size that was evaluated."""
    run = data.run
    try:
        sae = SparseAutoencoder.load(run.sae)
    except LightsaeError as error:
        data.notes.append(f"{run.name}: no autoencoder, so no neighbours of latents: {error}")
        return None
    if sae.d_sae != run.result.d_sae:
        raise LightsaeError(
            f"{run.sae}: has d_sae = {sae.d_sae}, the evaluation beside it {run.result.d_sae}: "
            "run `lightsae test` again"
        )
    return sae.eval()


def _class_effects(data: LatentData, sae: SparseAutoencoder) -> ClassEffects | None:
    """Those of the run, if there are any of this autoencoder."""
    try:
        return read_class_effects(data.run.folder, sae)
    except LightsaeError as error:
        data.notes.append(f"{data.run.name}: not shown what latents do: {error}")
        return None


def _names(data: LatentData, sae: SparseAutoencoder) -> LatentNames | None:
    """Those of the run, if there are any of this autoencoder."""
    try:
        return read_names(data.run.folder, sae)
    except LightsaeError as error:
        data.notes.append(f"{data.run.name}: names of latents are not shown: {error}")
        return None


def _data_module(data: LatentData) -> ActivationDataModule | None:
    """The shards that were evaluated, divided as in the run."""
    run = data.run
    shards = run.result.about.get("shards") or {}
    settings = run.data_settings()
    path = shards.get("path") or settings.get("path")
    why = "so no middle and weakest images, histograms, classes and neighbours by firing"
    if path is None:
        data.notes.append(f"{run.name}: the evaluation names no shards, {why}")
        return None
    try:
        manifest = data.manifest = Manifest.load(path)
        if shards.get("digest") not in (None, manifest.digest()):
            raise LightsaeError(f"{path}: other shards than those evaluated")
        given = {name: settings[name] for name in _SPLITTING if name in settings}
        module = ActivationDataModule(str(path), batch_size=_BATCH_ROWS, readers=0, **given)
        module.setup()
    except LightsaeError as error:
        data.notes.append(f"{run.name}: {error}; {why}")
        return None
    return module


def _read_rows(
    data: LatentData,
    sae: SparseAutoencoder,
    module: ActivationDataModule,
    top: int,
    between: int,
    progress: Progress,
) -> None:
    """Pass over the rows of the split."""
    split = cast(Split, data.run.result.about.get("split") or "test")
    keys, rows, last_token = split_index(module, split)
    drawn = drawn_images(keys, rows, int(sae.selection.k))
    tick = progress(f"{data.run.name}: images of each latent", rows)
    firings = firing_pass(
        sae, module.split_dataloader(split), drawn, copies=has_copies(module.manifest), rows=rows,
        of_images=len(keys), tick=tick,
    )  # fmt: skip
    whole = data.examples if len(drawn) < len(keys) else None
    data.firings = firings
    data.examples = choose_examples(firings, top, between, between, whole)
    if len(drawn) < len(keys):
        data.notes.append(
            f"{data.run.name}: middle and weakest images, histograms and classes are of "
            f"{len(drawn)} of {len(keys)} images, drawn at random"
        )
    data.together = nearest_by_co_firing(firings.rows, sae.d_sae)
    assert data.manifest is not None
    if data.manifest.tokens in ("patch", "all"):
        grid = patch_grid(data.manifest, last_token)
        if grid is None:
            data.notes.append(f"{data.run.name}: no heat maps: how its patches lie is not known")
            return
        tick = progress(f"{data.run.name}: heat maps", rows)
        data.maps = heat_maps(sae, module.split_dataloader(split), data.examples, grid, tick)


def scores_of(run: RunInputs) -> list[dict[str, Any]]:
    """What latents can be sorted by: arrays of the evaluation with a number per latent."""
    titles = {"firings": "frequency", "purity_binary": "purity",
              "purity_weighted": "weighted purity", "morans_i": "Moran's I"}  # fmt: skip
    found = []
    for name, tensor in run.result.latents.items():
        if tensor.dim() == 1 and name != "main_class":
            kind, _, where = name.partition("/")
            title = f"MS in {where}" if kind == "ms" else titles.get(name, name.replace("_", " "))
            found.append({"key": name, "title": title})
    order = {"ms": 0, "purity_binary": 1, "firings": 2}
    return sorted(found, key=lambda each: order.get(each["key"].partition("/")[0], 3))
