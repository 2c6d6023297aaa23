"""What the latents of one dictionary did over the rows: their sums, and the codes themselves."""

from copy import copy

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightsae.metrics.grouped_sums import grouped_sums

# Pairs of entries of a row that are added up at once, some 32 bytes each.
_PRODUCTS = 2**21


class Firings:
    """Sums of each latent over the rows that were added, and their codes until forgotten.

    Attributes:
        count: Rows on which it fires [d_sae], int64.
        total: Sum of its activations [d_sae], float64.
        square: Sum of their squares [d_sae], float64.
        low: The smallest of those that are positive [d_sae], float64; inf without one.
        high: The largest [d_sae], float64; zero without one.

    Example:
        >>> firings = Firings(d_sae=3, device="cpu")
        >>> firings.add(torch.tensor([[2.0, -1.0]]), torch.tensor([[1, 0]]))
        >>> firings.count, firings.varies(rows=1), firings.varies(rows=2)
        (tensor([0, 1, 0]), tensor([False, False, False]), tensor([False,  True, False]))
    """

    def __init__(self, d_sae: int, device: torch.device | str) -> None:
        self.d_sae = d_sae
        self.count = torch.zeros(d_sae, dtype=torch.int64, device=device)
        self.total = torch.zeros(d_sae, dtype=torch.float64, device=device)
        self.square, self.high = self.total.clone(), self.total.clone()
        self.low = torch.full_like(self.total, torch.inf)
        self._codes: list[tuple[Tensor, Tensor]] = []

    def add(self, values: Tensor, indices: Tensor) -> None:
        """Add a code [rows, k]; what is not positive does not fire."""
        fired = values > 0
        latents, a = indices[fired], values[fired].double()
        self.count = self.count + torch.bincount(latents, minlength=self.d_sae)
        self.total = self.total + grouped_sums(a, latents, self.d_sae)
        self.square = self.square + grouped_sums(a.square(), latents, self.d_sae)
        self.low = self.low.scatter_reduce(0, latents, a, "amin")
        self.high = self.high.scatter_reduce(0, latents, a, "amax")
        self._codes.append((values.where(fired, 0), indices.int()))

    @property
    def kept_bytes(self) -> int:
        """What the codes take."""
        return sum(values.nbytes + indices.nbytes for values, indices in self._codes)

    def forget(self) -> None:
        """Keep the codes no longer."""
        self._codes = []

    def copied(self) -> "Firings":
        """The same, to which other rows may be added."""
        other = copy(self)
        other._codes = list(self._codes)
        return other

    def varies(self, rows: int) -> Tensor:
        """Whether the activations of each latent differ over so many rows [d_sae], bool."""
        return ((self.count > 0) & (self.count < rows)) | (self.low < self.high)

    def spread(self, rows: int) -> Tensor:
        """Rows times the standard deviation of each over so many [d_sae]; NaN where none varies."""
        squared = rows * self.square - self.total.square()
        return squared.where(self.varies(rows), torch.nan).sqrt()

    def codes(self) -> tuple[Tensor, Tensor]:
        """Values and indices that are kept [rows, k], narrower ones with zeros behind."""
        if not self._codes:
            return self.total.new_zeros(0, 1), self.count.new_zeros(0, 1)
        k = max(values.shape[1] for values, _ in self._codes)
        columns = zip(*self._codes, strict=True)
        values, indices = (
            torch.cat([pad(each, (0, k - each.shape[1])) for each in column]) for column in columns
        )
        return values, indices

    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Latent, row and value of each kept activation, ascending by latent and row."""
        values, indices = self.codes()
        rows, places = values.nonzero(as_tuple=True)
        latents, order = indices[rows, places].sort(stable=True)
        return latents, rows[order], values[rows, places][order]


def add_products(
    entries: tuple[Tensor, Tensor, Tensor],
    codes: tuple[Tensor, Tensor],
    latents: slice,
    counts: Tensor,
    products: Tensor,
) -> None:
    """Add, for each pair of latents, the rows on which both fire and the products there.

    Args:
        entries: Latent, row and value of the one dictionary, as `Firings.entries`.
        codes: Values and indices of the other, as `Firings.codes`.
        latents: Which of the one dictionary.
        counts: Where rows are added [latents, d_other], contiguous, int64.
        products: Where products are added, alike, float64.

    Example:
        >>> one = torch.tensor([2]), torch.tensor([0]), torch.tensor([3.0])
        >>> other = torch.tensor([[5.0, 0.0]]), torch.tensor([[1, 0]])
        >>> counts, products = torch.zeros(1, 2).long(), torch.zeros(1, 2).double()
        >>> add_products(one, other, slice(2, 3), counts, products)
        >>> counts, products
        (tensor([[0, 1]]), tensor([[ 0., 15.]], dtype=torch.float64))
    """
    bounds = torch.tensor([latents.start, latents.stop], device=counts.device)
    first, last = torch.searchsorted(entries[0], bounds.to(entries[0].dtype)).tolist()
    values, indices = codes
    step = max(1, _PRODUCTS // max(1, values.shape[1]))
    for start in range(first, last, step):
        owners, rows, a = (each[start : min(start + step, last)] for each in entries)
        b = values[rows]
        places = (owners.long() - latents.start)[:, None] * counts.shape[1] + indices[rows]
        both = b > 0
        counts.view(-1).index_add_(0, places.flatten(), both.long().flatten())
        product = a.double()[:, None] * b.double()
        products.view(-1).index_add_(0, places.flatten(), product.flatten())
