"""`ImageEmbeddings`: one vector for each image of a split, under the name that outputs give it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightsae.errors import LightsaeError

# Rows whose float64 copy stays in cache.
_ROWS = 1024


@dataclass(frozen=True)
class ImageEmbeddings:
    """Embeddings of the images of a split.

    Attributes:
        name: Their name in every output.
        source: What they are: a folder and its model, or the own input.
        table: Float `[m, d_e]`, or None for the autoencoder's own input.
        place: Int64 `[n]`, which row of `table` belongs to each image; None if image i has row i.

    Example:
        >>> cnn = ImageEmbeddings("cnn", "a tensor", torch.eye(3))
        >>> cnn.of(torch.tensor([2, 0]))
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """

    name: str
    source: str
    table: Tensor | None
    place: Tensor | None = None

    def of(self, numbers: Tensor) -> Tensor:
        """The embeddings of some images.

        Args:
            numbers: Int64 `[B]`, numbers of images.

        Returns:
            Float `[B, d_e]`, on the device of `numbers`.
        """
        assert self.table is not None
        places = numbers.cpu()
        if self.place is not None:
            places = self.place[places]
        return self.table[places].to(numbers.device)

    def width(self, d_in: int) -> int:
        """d_e; that of the own input is d_in."""
        return d_in if self.table is None else self.table.shape[1]

    def described(self, d_in: int) -> dict[str, Any]:
        """What a result says of them."""
        return {"name": self.name, "d_e": self.width(d_in), "source": self.source}


def require_directions(table: Tensor, samples: Tensor, where: str) -> None:
    """Refuse vectors without a direction, which no cosine can be taken with.

    Args:
        table: Float `[m, d_e]`.
        samples: Int64 `[m]`, the sample of each row.
        where: What the message calls the embeddings.

    Raises:
        LightsaeError: Naming the first such sample.

    Example:
        >>> require_directions(torch.zeros(1, 2), torch.tensor([7]), "shards/cnn")
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: shards/cnn: the embedding of sample 7 has norm 0, expected \
a positive finite one
    """
    for start in range(0, len(table), _ROWS):
        norms = torch.linalg.vector_norm(table[start : start + _ROWS].double(), dim=1)
        wrong = ~((norms > 0) & norms.isfinite())
        if wrong.any():
            first = int(wrong.nonzero()[0])
            raise LightsaeError(
                f"{where}: the embedding of sample {int(samples[start + first])} has norm "
                f"{norms[first].item():g}, expected a positive finite one"
            )
