"""How runs are pooled."""

from dataclasses import dataclass

from jsonargparse.typing import PositiveFloat, PositiveInt


@dataclass(frozen=True)
class PoolOptions:
    """How duplicates are told, and what is kept.

    Attributes:
        d_sae: Latents to keep; by default all unique ones.
        cosine: Latents are the same from this cosine of their decoder rows on; above 1 never.
        iou: Or from this intersection over union of the rows they fire on on; above 1 never.
        order: Which are kept first: the most stable (stability) or the most frequent (frequency).
        rows: Training rows, at most, that firings are found on.
    """

    d_sae: PositiveInt | None = None
    cosine: PositiveFloat = 0.7
    iou: PositiveFloat = 0.7
    order: str = "stability"
    rows: PositiveInt = 32768
