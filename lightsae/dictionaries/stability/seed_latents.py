"""What a comparison of seeds knows of each latent of one of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class SeedLatents:
    """The latents of one seed.

    Attributes:
        firings: Rows on which each fires, [d_sae] int64.
        stable: Which are stable, [d_sae] bool; see `Cut`.
        similarity: Of each measure, "cosine" of decoder rows, "iou" and "correlation" of
            activations, the largest in each of the other seeds, [d_sae, S - 1] float64; NaN where
            there is none.
        columns: What the caller knows of each, such as monosemanticity, [d_sae] float64.
    """

    firings: Tensor
    stable: Tensor
    similarity: Mapping[str, Tensor]
    columns: Mapping[str, Tensor]

    @property
    def d_sae(self) -> int:
        """Size of the dictionary."""
        return len(self.firings)

    @property
    def alive(self) -> Tensor:
        """Which fire, [d_sae] bool."""
        return self.firings > 0

    @property
    def dead(self) -> int:
        """How many never fire."""
        return int((self.firings == 0).sum())
