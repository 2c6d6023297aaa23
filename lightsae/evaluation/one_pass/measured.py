"""`Measured`: figures under the names that a result gives them."""

from dataclasses import dataclass, field

from torch import Tensor

from lightsae.evaluation.one_pass.image_measures import ImageMeasures
from lightsae.evaluation.result import Scalar
from lightsae.metrics import (
    FiringDensity,
    MonosemanticityScores,
    MoransI,
    decoder_coherence,
    frequency_correlation,
    uniqueness,
)

Curve = dict[str, list[float]]


@dataclass
class Measured:
    """What a pass over a split gives.

    Attributes:
        rows: Rows seen.
        images: Images seen.
        scalars: As in `EvaluationResult`.
        curves: As in `EvaluationResult`.
        latents: As in `EvaluationResult`.
    """

    rows: int = 0
    images: int = 0
    scalars: dict[str, Scalar] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    latents: dict[str, Tensor] = field(default_factory=dict)

    def add_density(self, metric: FiringDensity) -> None:
        """How often latents fire, and how many never do."""
        density = metric.compute()
        firings = (density.frequency * self.rows).round().long()
        dead = int(density.dead)
        self.scalars |= {"dead": dead, "dead_fraction": dead / len(firings)}
        self.curves["firing_density"] = {
            "log10_low": density.log10_low.tolist(),
            "log10_high": density.log10_high.tolist(),
            "count": density.counts.tolist(),
        }
        self.latents["firings"] = firings

    def add_decoder(self, W_dec: Tensor) -> None:
        """How parallel the decoder rows are, [d_sae, d_in]."""
        coherence = decoder_coherence(W_dec)
        self.scalars["decoder_coherence"] = float(coherence.largest)
        self.scalars["decoder_coherence_mean"] = float(coherence.mean)
        self.latents["decoder_nearest_cosine"] = coherence.nearest

    def add_morans_i(self, metric: MoransI) -> None:
        """Whether a latent's patches lie beside each other."""
        scores = metric.compute()
        self.scalars["morans_i"] = float(scores.mean)
        self.latents["morans_i"] = scores.scores

    def add_images(
        self, measures: ImageMeasures, samples: Tensor | None, tokens: Tensor | None
    ) -> None:
        """What was measured per image.

        Args:
            measures: The metrics.
            samples: Int64 `[n]`, the sample of each image; None without strongest images.
            tokens: Int64 `[n]`, its token where each row is an image.
        """
        measures.flush()
        counted = measures.counted.compute()
        for name, metric in measures.scores.items():
            self._add_scores(name, metric.compute(), counted[name])
        if measures.purity is not None:
            purity = measures.purity.compute()
            self.scalars["purity_binary"] = float(purity.mean_binary)
            self.scalars["purity_weighted"] = float(purity.mean_weighted)
            self.latents["purity_binary"] = purity.binary
            self.latents["purity_weighted"] = purity.weighted
            self.latents["main_class"] = purity.main_class
        if measures.top is not None and samples is not None:
            self._add_top(*_of_numbers(measures, samples, tokens))

    def _add_scores(self, name: str, scores: MonosemanticityScores, images: int) -> None:
        """Monosemanticity in one embedding, with all that keeps a mean from deceiving."""
        self.scalars |= {
            f"ms_mean/{name}": float(scores.mean),
            f"ms_median/{name}": float(scores.median),
            f"ms_mean_with_dead_as_zero/{name}": float(scores.mean_with_dead_as_zero),
            f"ms_median_with_dead_as_zero/{name}": float(scores.median_with_dead_as_zero),
            f"ms_scored/{name}": scores.n_scored,
            f"ms_dead/{name}": scores.n_dead,
            f"ms_undefined/{name}": scores.n_undefined,
            f"ms_images/{name}": images,
            f"ms_frequency_correlation/{name}": float(
                frequency_correlation(self.latents["firings"], scores.scores)
            ),
        }
        self.latents[f"ms/{name}"] = scores.scores

    def _add_top(self, values: Tensor, numbers: Tensor, places: dict[str, Tensor]) -> None:
        """The strongest images, and how far each latent has its own."""
        unique = uniqueness(numbers)
        self.scalars["uniqueness"] = float(unique.mean)
        self.latents |= {"uniqueness": unique.scores, "top_values": values, **places}


def _of_numbers(
    measures: ImageMeasures, samples: Tensor, tokens: Tensor | None
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Activations, numbers, and samples and tokens of the strongest images."""
    assert measures.top is not None
    top = measures.top.compute()
    taken, numbers = top.samples >= 0, top.samples.clamp(min=0)
    known = {"top_samples": samples} | ({} if tokens is None else {"top_tokens": tokens})
    places = {
        name: column.to(numbers.device)[numbers].where(taken, -1) for name, column in known.items()
    }
    return top.values, top.samples, places
