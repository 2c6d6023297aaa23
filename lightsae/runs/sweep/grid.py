"""The autoencoders of a grid: what tells them apart, their names and their configurations."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from lightsae.errors import LightsaeError
from lightsae.runs.sweep.latents_per_row import k_of, with_k
from lightsae.runs.sweep.settings import SweepSettings
from lightsae.training.checkpoints.saved_settings import REGULARIZERS

BASELINE = "baseline"


class Variant(NamedTuple):
    """A regularizer as a configuration has it, without its weight; None for the baseline."""

    name: str
    configuration: dict[str, Any] | None


@dataclass(frozen=True)
class Point:
    """One autoencoder of a grid.

    Attributes:
        k: Latents per row.
        d_sae: Size of the dictionary.
        lr: Learning rate; None for that of the configuration.
        seed: Of its weights.
        variant: Name of its regularizer, or "baseline".
        weight: lambda; 0 for the baseline.
    """

    k: int
    d_sae: int
    lr: float | None
    seed: int
    variant: str = BASELINE
    weight: float = 0.0

    @property
    def name(self) -> str:
        """Name of its run folder.

        Example:
            >>> Point(8, 512, 1e-3, 0, "OffSupportL1", 3e-4).name
            'k8-d_sae512-OffSupportL1-0.0003-lr0.001-seed0'
        """
        weight = [] if self.variant == BASELINE else [f"{self.weight:.12g}"]
        rate = [] if self.lr is None else [f"lr{self.lr:.12g}"]
        parts = [f"k{self.k}", f"d_sae{self.d_sae}", self.variant, *weight, *rate]
        return "-".join([*parts, f"seed{self.seed}"])

    @property
    def setting(self) -> tuple[int, int, float | None]:
        """What it has in common with the baseline that it is compared with, but for the seed."""
        return self.k, self.d_sae, self.lr


class Grid:
    """What a configuration and its `sweep:` section describe.

    Args:
        settings: The section.
        base: Settings of `fit` as plain values.

    Raises:
        LightsaeError: Naming what is missing or cannot be swept.
    """

    def __init__(self, settings: SweepSettings, base: Mapping[str, Any]) -> None:
        self.settings, self._base = settings, base
        model = base["model"].get("init_args") or {}
        self._selection = model.get("selection") or {"class_path": "lightsae.sae.TopK"}
        seed = base.get("seed_everything")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise LightsaeError(f"seed_everything is {seed}, a sweep needs a number")
        rate = ((model.get("optimizer") or {}).get("init_args") or {}).get("lr")
        self._d_sae = settings.d_sae or [model["d_sae"]]
        self._lr: Sequence[float | None] = settings.lr or [rate]
        self._seeds = settings.seed or [seed]
        self.variants = _variants(settings, model.get("regularizer"))

    def settings_of_points(self) -> list[tuple[int, int, float | None]]:
        """k, d_sae and learning rate of every comparison."""
        if self.settings.k is not None:
            return list(product(self.settings.k, self._d_sae, self._lr))
        sizes = product(self._d_sae, self._lr)
        return [(k_of(self._selection, d_sae), d_sae, lr) for d_sae, lr in sizes]

    def baselines(self) -> list[Point]:
        """The baseline of every comparison and seed."""
        return [Point(*each, seed) for each in self.settings_of_points() for seed in self._seeds]

    def points(self) -> list[Point]:
        """All of the grid, the baselines first for each setting and seed."""
        weights = {variant.name: self._weights(variant) for variant in self.variants}
        return self.beside_baselines(
            {(each, name): found for each in self.settings_of_points()
             for name, found in weights.items()}
        )  # fmt: skip

    def beside_baselines(
        self, weights: Mapping[tuple[tuple[int, int, float | None], str], Sequence[float]]
    ) -> list[Point]:
        """Regularizers with some weights for each setting, beside their baselines."""
        points = []
        for each, seed in product(self.settings_of_points(), self._seeds):
            points.append(Point(*each, seed))
            points += [
                Point(*each, seed, variant.name, weight)
                for variant in self.variants for weight in weights[each, variant.name]
            ]  # fmt: skip
        return points

    def _weights(self, variant: Variant) -> list[float]:
        if self.settings.weight is not None:
            return self.settings.weight
        assert variant.configuration is not None
        found = (variant.configuration.get("init_args") or {}).get("weight")
        if found is None:
            raise LightsaeError(
                f"sweep.weight: {variant.name} has no weight: give sweep.weight or its own"
            )
        return [float(found)]

    def configuration(self, point: Point) -> dict[str, Any]:
        """Settings of `fit` for one autoencoder, as plain values."""
        found = deepcopy(dict(self._base))
        model = found["model"].setdefault("init_args", {})
        model["selection"] = with_k(self._selection, point.k, point.d_sae)
        model["d_sae"] = point.d_sae
        model["regularizer"] = self._regularizer(point)
        if point.lr is not None:
            optimizer = model.get("optimizer") or {"class_path": "lightsae.training.SAEAdam"}
            optimizer["init_args"] = {**(optimizer.get("init_args") or {}), "lr": point.lr}
            model["optimizer"] = optimizer
        found["seed_everything"] = point.seed
        return found

    def _regularizer(self, point: Point) -> dict[str, Any] | None:
        if point.variant == BASELINE:
            return None
        configuration = next(v.configuration for v in self.variants if v.name == point.variant)
        assert configuration is not None
        arguments = {**(configuration.get("init_args") or {}), "weight": point.weight}
        return {**deepcopy(configuration), "init_args": arguments}


def groups(points: Iterable[Point], at_once: int) -> list[list[Point]]:
    """Points that train together: of one shape, not too many.

    Example:
        >>> points = [Point(k, 64, None, seed) for seed in (0, 1, 2) for k in (4, 8)]
        >>> [[(p.k, p.seed) for p in group] for group in groups(points, 2)]
        [[(4, 0), (4, 1)], [(4, 2)], [(8, 0), (8, 1)], [(8, 2)]]
    """
    shapes: dict[tuple[int, int], list[Point]] = {}
    for point in points:
        shapes.setdefault((point.k, point.d_sae), []).append(point)
    return [
        members[first : first + at_once]
        for members in shapes.values()
        for first in range(0, len(members), at_once)
    ]


def _variants(settings: SweepSettings, own: dict[str, Any] | None) -> list[Variant]:
    """The regularizers, each with a name of its own."""
    given = [own] if settings.regularizer is None else settings.regularizer
    found = [_variant(each) for each in given if each is not None]
    if not found and (settings.weight is not None or settings.find_lambda):
        key = "find_lambda" if settings.find_lambda else "weight"
        raise LightsaeError(f"sweep.{key}: there is no regularizer to weigh: set sweep.regularizer")
    names = [variant.name for variant in found]
    for name in names:
        if names.count(name) > 1:
            raise LightsaeError(f"sweep.regularizer: {name} is given twice")
    return found


def _variant(given: str | dict[str, Any]) -> Variant:
    """A regularizer by its class; one of this package may be named by its name alone."""
    configuration = {"class_path": given} if isinstance(given, str) else dict(given)
    path = configuration.get("class_path")
    if not isinstance(path, str) or not path:
        raise LightsaeError(
            f"sweep.regularizer: {given}, expected null, a class, or class_path and init_args"
        )
    name = path.rpartition(".")[2]
    if path in REGULARIZERS:
        configuration["class_path"] = f"lightsae.sae.{path}"
    if name.lower() == BASELINE:
        raise LightsaeError(f"sweep.regularizer: {path} has the name of the baseline")
    return Variant(name, configuration)
