"""Monosemanticity of all latents, and which of them have none."""

from torch import Tensor


class MonosemanticityScores:
    """Scores of all latents and how many of them have one.

    Attributes:
        scores: Score of each latent [d_sae], float64; NaN where dead or undefined.
        dead: Latents that never fired [d_sae], bool.
        undefined: Latents that fired, but have fewer than two images with a non-zero scaled
            activation, and so no pair to compare, or whose activation is the same on all images
            to 2e-5 of itself [d_sae], bool.
    """

    def __init__(self, scores: Tensor, dead: Tensor, undefined: Tensor) -> None:
        self.scores = scores
        self.dead = dead
        self.undefined = undefined

    @property
    def mean(self) -> Tensor:
        """Mean over the latents that have a score; NaN if none has."""
        return self.scores.nanmean()

    @property
    def median(self) -> Tensor:
        """Median over the latents that have a score (midpoint of two); NaN if none has."""
        return self.scores.nanquantile(0.5)

    @property
    def mean_with_dead_as_zero(self) -> Tensor:
        """Mean over all latents, those that are dead or undefined as 0."""
        return self.scores.nan_to_num(0).mean()

    @property
    def median_with_dead_as_zero(self) -> Tensor:
        """Median over all latents (midpoint of two), those that are dead or undefined as 0."""
        return self.scores.nan_to_num(0).quantile(0.5)

    @property
    def n_scored(self) -> int:
        """Number of latents that have a score."""
        return int((~self.scores.isnan()).sum())

    @property
    def n_dead(self) -> int:
        """Number of latents that never fired."""
        return int(self.dead.sum())

    @property
    def n_undefined(self) -> int:
        """Number of latents that fired without a pair to compare."""
        return int(self.undefined.sum())

    def __repr__(self) -> str:
        return (
            f"MonosemanticityScores(mean={self.mean:.4f}, median={self.median:.4f}, "
            f"scored={self.n_scored}, dead={self.n_dead}, undefined={self.n_undefined})"
        )
