"""`SteeringTask`: what is steered, from which examples latents are found, and what is measured."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError
from lightsae.interventions.finding.collect_features import collect_features
from lightsae.interventions.finding.latent_ranking import LatentRanking, ranking_of_probe
from lightsae.interventions.finding.layer_features import FeaturePooling, LayerFeatures
from lightsae.interventions.finding.probe import fit_probe
from lightsae.sae import SparseAutoencoder

Split = Literal["choice", "test"]
Batch = Tensor | Mapping[str, Tensor]


class Measured(NamedTuple):
    """A metric, sample by sample: its value is `amounts.sum() / counts.sum()`.

    Of a rate or a mean all counts are 1; of a word error rate amounts are errors and counts words.

    Attributes:
        amounts: Of each sample, [n].
        counts: What the amounts are shares of, [n], not negative.

    Example:
        >>> import torch
        >>> errors = Measured(torch.tensor([1, 0, 2]), torch.tensor([5, 3, 2]))
        >>> errors.value
        0.3
    """

    amounts: Tensor
    counts: Tensor

    @property
    def value(self) -> float:
        """The metric over all samples."""
        return float(self.amounts.double().sum() / self.counts.double().sum())


@dataclass(frozen=True)
class GuardLimit:
    """How far a guard metric may move from the baseline, in the metric's own units.

    Attributes:
        rise: How much it may rise; None where rising is no damage.
        fall: How much it may fall; None where falling is no damage.

    Raises:
        LightsaeError: If neither is given, or one is not above 0.

    Example:
        >>> GuardLimit(rise=0.02).damage(0.01)
        0.5
        >>> GuardLimit(rise=0.02).damage(-0.01)
        0.0
    """

    rise: float | None = None
    fall: float | None = None

    def __post_init__(self) -> None:
        given = [each for each in (self.rise, self.fall) if each is not None]
        if not given or not all(0 < each < float("inf") for each in given):
            raise LightsaeError(
                f"GuardLimit(rise={self.rise}, fall={self.fall}): expected one of them or both, "
                "above 0"
            )

    def damage(self, change: float) -> float:
        """Share of the limit that a change uses up: 0 for none, above 1 beyond the limit.

        Args:
            change: The guard's value less the baseline's.
        """
        up = 0.0 if self.rise is None else change / self.rise
        down = 0.0 if self.fall is None else -change / self.fall
        return max(up, down, 0.0)


class Examples(NamedTuple):
    """Labelled inputs from which latents are found.

    Attributes:
        batches: Inputs of the model in batches: tensors, or dicts of keyword arguments.
        labels: Of each sample 0 or 1, [n] int64, in the order of the batches.
    """

    batches: Iterable[Batch]
    labels: Array


class SteeringTask(ABC):
    """What `steer` needs of a problem; a subclass is named in YAML by its class path.

    A subclass sets the attributes in its `__init__` and writes `examples` and `measure`.

    Attributes:
        model: The model, in eval mode, on its device.
        saes: The autoencoders, by the name of the module whose output each was trained on; in eval
            mode where their selection knows it, such as `BatchTopK`.
        target: Name of the metric that steering is for.
        target_falls: Whether less of it is better.
        guards: Metrics that must not be damaged, and how far each may move.
        pooling: How the values of a latent over a sample's positions become one, for `features`.
        positions: Positions of a sample that are edited; None for all.
        layouts: Axes of layers' outputs where they are not the usual, as `attach` takes them.

    Example:
        >>> import torch
        >>> class Halves(SteeringTask):
        ...     target, target_falls = "positive", True
        ...
        ...     def __init__(self) -> None:
        ...         self.model = torch.nn.Sequential(torch.nn.Identity()).eval()
        ...         self.saes = {"0": SparseAutoencoder(4, 8)}
        ...         self.guards = {"norm": GuardLimit(rise=0.5)}
        ...         self.x = torch.randn(6, 4)
        ...
        ...     def examples(self) -> Examples:
        ...         return Examples([self.x], (self.x[:, 0] > 0).long().numpy())
        ...
        ...     def measure(self, split: Split) -> dict[str, Measured]:
        ...         y, ones = self.model(self.x), torch.ones(6)
        ...         return {
        ...             "positive": Measured((y[:, 0] > 0).float(), ones),
        ...             "norm": Measured(y.norm(dim=1), ones),
        ...         }
    """

    model: nn.Module
    saes: Mapping[str, SparseAutoencoder]
    target: str
    target_falls: bool
    guards: Mapping[str, GuardLimit]
    pooling: FeaturePooling = "mean_nonzero"
    positions: Sequence[int] | None = None
    layouts: Mapping[str, str] | None = None

    @abstractmethod
    def examples(self) -> Examples:
        """Inputs of the split "find", with labels: 1 for what the latents shall tell apart from 0.

        Returns:
            Examples that are in neither of the splits that `measure` knows.
        """

    @abstractmethod
    def measure(self, split: Split) -> Mapping[str, Measured]:
        """Run the model over a split, under whatever hooks are attached, and measure.

        The samples of a metric are the same, in the same order, each time.

        Args:
            split: "choice", on which the point is chosen, or "test".

        Returns:
            The target, every guard, and what else shall stand in the table.
        """

    def hashes(self) -> Mapping[str, str]:
        """Of what the task reads, such as recordings or questions: by default none.

        A folder in which a steering of other hashes was begun is refused. Model, autoencoders and
        limits are seen without it.

        Returns:
            Hashes, or plain texts, by name.
        """
        return {}

    def forward(self, model: nn.Module, batch: Batch) -> object:
        """Run the model over a batch of `examples`; another call than `model(batch)` goes here."""
        return model(**batch) if isinstance(batch, Mapping) else model(batch)

    def features(self, batches: Iterable[Batch]) -> Mapping[str, LayerFeatures]:
        """Codes and activations of the examples, by layer; by default `collect_features`.

        Args:
            batches: Those of `examples`.
        """
        return collect_features(
            self.model, self.saes, batches, pooling=self.pooling, forward=self.forward
        )

    def ranking(self, features: LayerFeatures, labels: Array) -> LatentRanking:
        """Latents of a layer, those first that tell the labels apart; by default by a probe.

        It is asked for again with shuffled labels, so it must not know the labels otherwise.

        Args:
            features: Of the examples, a row each.
            labels: Of the rows, [n].

        Returns:
            The latents, best first, at least as many as are steered.
        """
        return ranking_of_probe(fit_probe(features.codes, labels), features.codes)
