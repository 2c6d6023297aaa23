"""`StabilityResult`: what is stable over seeds, as stability.json and stability.safetensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lightsae.dictionaries.stability.baselines import RandomStability
from lightsae.dictionaries.stability.comparison import (
    SetDifference,
    StabilityCurve,
    set_difference,
    stability_curve,
)
from lightsae.dictionaries.stability.latent_stability import Cut, stability_of
from lightsae.dictionaries.stability.reconstruction_share import ReconstructionShares
from lightsae.dictionaries.stability.result_files import Described, read_result, write_result
from lightsae.dictionaries.stability.seed_latents import SeedLatents
from lightsae.dictionaries.subspaces.between_seeds import Baseline, SubspaceComparison
from lightsae.dictionaries.subspaces.intervals import defined_interval
from lightsae.metrics.comparison.intervals import Interval
from lightsae.typed_json import plain


@dataclass(frozen=True, eq=False)
class StabilityResult:
    """Seeds side by side over one data set; see `measure_stability`.

    Means over latents are over those that fire.

    Attributes:
        names: Of the autoencoders, as given.
        d_in: Width of the activations.
        rows: How many activations there were.
        thresholds: tau of the stability.
        cut: What divides stable and unstable.
        seeds: Of each autoencoder its latents.
        baselines: Mean stability by cosine with "uniform" and "covariance" random dictionaries.
        shuffled: Of each measure of activations the mean stability of the first two seeds with the
            rows of either shuffled within batches.
        reconstruction: Of each autoencoder its shares.
        unstable: The spans of the unstable latents, compared between seeds.
        weighted: Likewise, each direction times the root mean square of its activations: the spans
            of what these latents write, in which those that hardly fire hardly count.

    Example:
        >>> import tempfile
        >>> from lightsae.dictionaries import measure_stability
        >>> from lightsae.sae import SparseAutoencoder, TopK
        >>> saes = [SparseAutoencoder(4, 8, TopK(2)) for seed in range(2)]
        >>> result = measure_stability(saes, [torch.randn(64, 4)], co_firing=False)
        >>> folder = tempfile.mkdtemp()
        >>> result.save(folder)
        >>> StabilityResult.load(folder).names
        ('0', '1')
    """

    names: tuple[str, ...]
    d_in: int
    rows: int
    thresholds: tuple[float, ...]
    cut: Cut
    seeds: tuple[SeedLatents, ...]
    baselines: Mapping[str, RandomStability]
    shuffled: Mapping[str, RandomStability]
    reconstruction: tuple[ReconstructionShares, ...]
    unstable: SubspaceComparison
    weighted: SubspaceComparison

    @property
    def measures(self) -> tuple[str, ...]:
        """Similarities there are: "cosine", and of activations "iou" and "correlation"."""
        return tuple(self.seeds[0].similarity)

    def stability(self, measure: str = "cosine") -> tuple[Tensor, ...]:
        """Of each seed the stability of its latents at each threshold, [d_sae, T] float64."""
        similarity = [each.similarity[measure] for each in self.seeds]
        return stability_of(similarity, self.thresholds).shares

    def mean_stability(self, measure: str = "cosine") -> tuple[Interval, ...]:
        """Mean stability at each threshold, in an interval over seeds."""
        means = [
            shares[each.alive].nanmean(dim=0).tolist()
            for shares, each in zip(self.stability(measure), self.seeds, strict=True)
        ]
        return tuple(map(defined_interval, zip(*means, strict=True)))

    def curve(self, measure: str = "cosine") -> StabilityCurve:
        """Stability against frequency, over the latents of all seeds that fire and have one."""
        shares = torch.cat(self.stability(measure))
        frequency = torch.cat([self.frequency(place) for place in range(len(self.seeds))])
        known = ~shares.isnan().any(dim=1)
        return stability_curve(frequency[known], shares[known])

    def frequency(self, seed: int) -> Tensor:
        """Share of rows on which each latent of a seed fires, [d_sae] float64."""
        return self.seeds[seed].firings.double() / max(self.rows, 1)

    def differences(self) -> dict[str, SetDifference]:
        """Of frequency and of each column, stable and unstable latents side by side."""
        columns = {"frequency": [self.frequency(place) for place in range(len(self.seeds))]}
        for name in self.seeds[0].columns:
            columns[name] = [each.columns[name] for each in self.seeds]
        stable, alive = ([getattr(each, name) for each in self.seeds]
                         for name in ("stable", "alive"))  # fmt: skip
        return {name: set_difference(each, stable, alive) for name, each in columns.items()}

    def shares(self) -> dict[str, dict[str, Interval]]:
        """Of "stable" and "unstable" each figure of `SetShare`, in an interval over seeds."""
        found: dict[str, dict[str, Interval]] = {}
        for name in ("stable", "unstable"):
            each = [getattr(one, name)._asdict() for one in self.reconstruction]
            found[name] = {key: defined_interval(one[key] for one in each) for key in each[0]}
        return found

    def summary(self) -> dict[str, Any]:
        """Every figure that is not of a single latent, as plain values."""
        return {
            "latents": {
                "d_sae": [each.d_sae for each in self.seeds],
                "dead": [each.dead for each in self.seeds],
                "stable": [int((each.stable & each.alive).sum()) for each in self.seeds],
            },
            "mean_stability": {name: plain(self.mean_stability(name)) for name in self.measures},
            "r2": plain(defined_interval(each.full.r2 for each in self.reconstruction)),
            "shares": plain(self.shares()),
            "differences": plain(self.differences()),
            "curve": plain(self.curve()),
            "unstable": _overlaps(self.unstable),
            "weighted": _overlaps(self.weighted),
        }

    def save(self, folder: str | Path) -> None:
        """Write stability.safetensors and stability.json, each replaced as a whole.

        The JSON has `summary()` too, for other programs; `load` makes that anew.

        Args:
            folder: Where; made if it is not there.

        Raises:
            LightsaeError: If it cannot be written.
        """
        described = Described(
            self.names, self.d_in, self.rows, self.thresholds, self.cut,
            dict(self.baselines), dict(self.shuffled), self.reconstruction, self.unstable,
            self.weighted,
        )  # fmt: skip
        write_result(Path(folder), described, self.seeds, self.summary())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote; nothing in the files is run.

        Args:
            folder: The folder with both files.

        Raises:
            LightsaeError: If a file is missing, malformed, or not of the other.

        Example:
            >>> StabilityResult.load("nowhere")
            Traceback (most recent call last):
            ...
            lightsae.errors.LightsaeError: nowhere/stability.json cannot be read: No such file or \
directory
        """
        found, seeds = read_result(Path(folder))
        return cls(
            found.names, found.d_in, found.rows, found.thresholds, found.cut, seeds,
            found.baselines, found.shuffled, found.reconstruction, found.unstable, found.weighted,
        )  # fmt: skip


def _overlaps(spans: SubspaceComparison) -> dict[str, Any]:
    """Overlap between seeds, and by how much it exceeds each baseline."""
    baselines: tuple[Baseline, ...] = ("random", "others", "data")
    beyond = {f"beyond_{name}": plain(spans.beyond(name)) for name in baselines}
    return {"ranks": list(spans.ranks), "overlap": plain(spans.overlap), **beyond}
