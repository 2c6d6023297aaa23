"""Moran's I: are the patches on which a latent fires next to each other?"""

from typing import NamedTuple

from torch import Tensor

from lightsae.metrics.code_inputs import Code, size
from lightsae.metrics.metric_base import ExactMetric


class MoransIScores(NamedTuple):
    """Moran's I of all latents.

    Attributes:
        scores: Mean of I over the images that have one [d_sae], float64; NaN without one.
        images: Images that the mean is over [d_sae], int64.
        mean: Mean of the scores over latents, float64 scalar; NaN without one.
        incomplete: Images of which not every patch was given; they are left out. Int64 scalar.
    """

    scores: Tensor
    images: Tensor
    mean: Tensor
    incomplete: Tensor


def morans_i(
    values: Code,
    indices: Tensor | None = None,
    sample_index: Tensor | None = None,
    patch_index: Tensor | None = None,
    d_sae: int | None = None,
    grid: tuple[int, int] | None = None,
) -> MoransIScores:
    """Moran's I."""
    raise NotImplementedError


class MoransI(ExactMetric):
    """Moran's I.

    Args:
        d_sae: Number of latents.
        grid: Rows and columns of patches of an image.
        **kwargs: Passed to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    def __init__(self, d_sae: int, grid: tuple[int, int], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_sae = size("d_sae", d_sae)

    def update(
        self,
        values: Code,
        indices: Tensor | None = None,
        sample_index: Tensor | None = None,
        patch_index: Tensor | None = None,
    ) -> None:
        """Add patches."""
        raise NotImplementedError

    def compute(self) -> MoransIScores:
        """Return Moran's I of all latents."""
        raise NotImplementedError
