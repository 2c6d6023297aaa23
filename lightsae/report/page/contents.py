"""Everything that the page shows, as JSON and arrays."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from math import isfinite
from typing import Any

import numpy as np

from lightsae.activations.shards.dtypes import Array
from lightsae.evaluation.comparison.run_groups import regularizer_names, seed_groups, setting_names
from lightsae.report.figures.chart import Chart, by_setting
from lightsae.report.figures.evaluation_charts import (
    firing_density,
    k_robustness,
    ms_against_frequency,
    ms_histogram,
    rank_profile,
    truncated_probe,
)
from lightsae.report.figures.sweep_charts import lambda_sweep, sweep_point
from lightsae.report.figures.training_charts import training_curves
from lightsae.report.latents.composition import activation_histogram, class_make_up
from lightsae.report.latents.neighbours import cosine_of_pairs, nearest_in_other
from lightsae.report.page.class_effects import effects_contents
from lightsae.report.page.given_names import names_contents
from lightsae.report.page.latent_data import LatentData, scores_of
from lightsae.report.page.packing import ArrayPack
from lightsae.report.reading.comparison import embeddings
from lightsae.report.reading.row_names import row_names
from lightsae.report.reading.run_inputs import RunInputs

_STEPS = (1 << 16) - 1


def charts_of(runs: Sequence[RunInputs]) -> list[dict[str, Any]]:
    """All charts that have something to show, with the group that each belongs to."""
    results = {run.name: run.result for run in runs}
    names = embeddings(runs)
    first = names[0] if names else None
    told = zip(runs, regularizer_names(runs), setting_names(runs), strict=True)
    points = [
        replace(point, variant=variant)
        for run, variant, setting in told
        if (point := sweep_point(run.result, first, setting)) is not None
    ]
    groups: dict[str, list[Chart]] = {
        "Sweep over λ": lambda_sweep(points, first),
        "Codes": [rank_profile(results), k_robustness(results), truncated_probe(results)],
        "Latents": [
            firing_density(results),
            *(ms_histogram(results, name) for name in names),
            *(ms_against_frequency(results, name) for name in names),
        ],
        "Training": training_curves({run.name: run.history for run in runs}),
    }
    for group in ("Codes", "Latents", "Training"):
        groups[group] = [by_setting(chart, _settings(runs)) for chart in groups[group]]
    return [each for group, charts in groups.items() for each in grouped(group, charts)]


def grouped(group: str, charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """Charts that have something to show as plain values, with the group that they belong to."""
    return [{"group": group, **_plain(asdict(chart))} for chart in charts if chart.has_points]


def _settings(runs: Sequence[RunInputs]) -> dict[str, str]:
    """Of each run by its name what it and the other seeds of its setting are called."""
    groups = seed_groups(runs)
    found: dict[str, str] = {}
    for name, places in zip(row_names(runs, groups), groups, strict=True):
        weight, alone = runs[places[0]].weight, len(groups) == len(runs)
        told = name if alone or not weight else f"{name}, λ {weight:g}"
        found |= {runs[place].name: told for place in places}
    return found


def _plain(value: Any) -> Any:
    """Plain values, None for numbers that are not finite, six digits of the others."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if isfinite(value) else None
    return value


class SpriteIndex:
    """A number for every image that is shown.

    Args:
        data: The runs; those of the same images share them.
    """

    def __init__(self, data: Sequence[LatentData]) -> None:
        keys = [_images_key(each) for each in data]
        self.groups = list(dict.fromkeys(keys))
        self._group = [self.groups.index(key) for key in keys]
        found: list[list[Array]] = [[] for _ in self.groups]
        for group, each in zip(self._group, data, strict=True):
            if each.examples is not None:
                found[group].append(_in_order_of_use(each))
        self.keys = [_distinct(parts) for parts in found]
        self._begins = np.cumsum([0, *map(len, self.keys)])

    def __len__(self) -> int:
        """Number of images."""
        return int(self._begins[-1])

    def group_of(self, place: int) -> int:
        """Which group of images a run has."""
        return self._group[place]

    def numbers(self, place: int, keys: Array) -> Array:
        """Of images of a run their numbers on the page, 0 for none and 1 for the first."""
        mine = self.keys[self._group[place]]
        numbers: Array = np.zeros(keys.shape, np.int64)
        shown = keys >= 0
        order = np.argsort(mine)
        found = order[np.searchsorted(mine[order], keys[shown])]
        numbers[shown] = found + self._begins[self._group[place]] + 1
        return numbers


def _images_key(data: LatentData) -> str:
    """What runs have in common whose sample indices mean the same images."""
    manifest = data.manifest
    return "" if manifest is None else str(manifest.settings.get("data") or manifest.digest())


def _in_order_of_use(data: LatentData) -> Array:
    """Images in the order in which a gallery sorted by score comes to them."""
    assert data.examples is not None
    keys = data.examples.keys
    scores = next(
        (tensor for name, tensor in data.run.result.latents.items() if name.startswith("ms/")),
        data.run.result.latents.get("firings"),
    )
    if scores is not None:
        order = scores.double().nan_to_num(-1).argsort(descending=True, stable=True)
        keys = keys[order.numpy()]
    return keys[keys >= 0]


def _distinct(parts: list[Array]) -> Array:
    """Distinct images in order of appearance."""
    if not parts:
        return np.zeros(0, np.int64)
    every = np.concatenate(parts)
    _, first = np.unique(every, return_index=True)
    return every[np.sort(first)]


def run_contents(
    place: int, data: LatentData, sprites: SpriteIndex, pack: ArrayPack
) -> dict[str, Any]:
    """A run's gallery: its arrays into the pack, the rest as JSON.

    Args:
        place: Number of the run on the page.
        data: Its latents.
        sprites: The images.
        pack: Takes the arrays, under `run/name`.
    """
    result = data.run.result
    for each in scores_of(data.run):
        pack.add(f"{place}/{each['key']}", result.latents[each["key"]].numpy())
    for name in ("main_class",):
        if name in result.latents and not result.latents[name].is_floating_point():
            pack.add(f"{place}/{name}", result.latents[name].numpy())
    if data.examples is not None:
        examples = data.examples
        largest = np.maximum(examples.values.max(axis=1, initial=0), np.finfo(np.float32).tiny)
        shares = np.rint(examples.values / largest[:, None] * _STEPS).clip(0, _STEPS)
        pack.add(f"{place}/images", sprites.numbers(place, examples.keys))
        pack.add(f"{place}/strengths", shares.astype(np.uint16))
        pack.add(f"{place}/largest", largest.astype(np.float32))
    if data.firings is not None:
        histogram, _ = activation_histogram(data.firings)
        classes, counts, total = class_make_up(data.firings)
        pack.add(f"{place}/histogram", histogram)
        pack.add(f"{place}/fires_on", np.diff(data.firings.begins))
        if data.firings.labels is not None:
            pack.add(f"{place}/classes", classes)
            pack.add(f"{place}/class_counts", counts)
            pack.add(f"{place}/class_total", total)
    for name, found in (("near", data.near), ("together", data.together)):
        if found is not None:
            pack.add(f"{place}/{name}", found.latents.numpy())
            pack.add(f"{place}/{name}_likeness", found.likeness.numpy())
    if data.maps is not None:
        pack.add(f"{place}/map_begins", data.maps.begins)
        pack.add(f"{place}/map_patches", data.maps.patches)
        pack.add(f"{place}/map_values", data.maps.values)
    about = result.about
    shown = data.examples
    return {
        "name": data.run.name,
        "d_sae": result.d_sae,
        "k": about.get("k"),
        "rows": about.get("rows"),
        "images": about.get("images"),
        "scores": scores_of(data.run),
        "embeddings": result.embedding_names,
        "classes": data.classes,
        "places": [shown.top, shown.middle, shown.bottom] if shown else [0, 0, 0],
        "grid": [data.maps.grid.height, data.maps.grid.width] if data.maps else None,
        "looked_at": 0 if data.firings is None else len(data.firings.keys),
        "has_heat_maps": data.maps is not None,
        "effects": effects_contents(place, data.effects, data.named_classes, pack),
        "names": names_contents(place, data.names, pack),
    }


def add_partners(
    data: Sequence[LatentData], pack: ArrayPack, baseline: int
) -> list[dict[str, Any]]:
    """Which latents of other runs each latent has beside it.

    Args:
        data: The runs.
        pack: Takes the arrays.
        baseline: Where pairs are many, only those with this run.

    Returns:
        Of each ordered pair of runs their numbers, and whether latents of equal index belong
        together, as the seed is the same.
    """
    pairs = []
    for one, first in enumerate(data):
        for two, second in enumerate(data):
            if one == two or (len(data) > 4 and baseline not in (one, two)):
                continue
            if first.decoder is None or second.decoder is None:
                continue
            if first.decoder.shape[1] != second.decoder.shape[1]:
                continue
            seeds = first.run.seed, second.run.seed
            paired = seeds[0] is not None and seeds[0] == seeds[1]
            paired &= first.decoder.shape == second.decoder.shape
            found = nearest_in_other(first.decoder, second.decoder)
            pack.add(f"{one}/to/{two}", found.latents[:, 0].numpy())
            pack.add(f"{one}/to/{two}/cosine", found.likeness[:, 0].numpy())
            if paired:
                cosine = cosine_of_pairs(first.decoder, second.decoder)
                pack.add(f"{one}/to/{two}/paired", cosine.numpy())
            pairs.append({"from": one, "to": two, "paired": paired})
    return pairs
