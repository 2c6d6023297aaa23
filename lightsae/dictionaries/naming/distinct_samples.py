"""In how many different samples latents fire, up to a few, over batches of rows in any order."""

import torch
from torch import Tensor


class DistinctSamples:
    """Counts the different samples of each latent, up to a number that is enough.

    Memory does not grow with the samples: of each latent `enough` numbers are kept.

    Args:
        d_sae: Number of latents.
        enough: Where counting ends.

    Attributes:
        count: Different samples where each latent fires, at most `enough` [d_sae], int64.

    Example:
        >>> samples = DistinctSamples(d_sae=2, enough=2)
        >>> samples.update(torch.tensor([0, 0, 0, 1]), torch.tensor([7, 7, 8, 7]))
        >>> samples.update(torch.tensor([0, 1]), torch.tensor([9, 7]))
        >>> samples.count
        tensor([2, 1])
    """

    def __init__(self, d_sae: int, enough: int) -> None:
        self.enough = enough
        self.count = torch.zeros(d_sae, dtype=torch.long)
        self._seen = torch.zeros(d_sae, enough, dtype=torch.long)

    def update(self, latents: Tensor, samples: Tensor) -> None:
        """Add firings.

        Args:
            latents: Which latents fire [firings], int64.
            samples: In which samples [firings], int64.
        """
        missing = self.count[latents] < self.enough
        latent, sample = torch.stack([latents[missing], samples[missing]]).unique(dim=1)
        held = torch.arange(self.enough) < self.count[latent].unsqueeze(1)
        known = ((self._seen[latent] == sample.unsqueeze(1)) & held).any(dim=1)
        latent, sample = latent[~known], sample[~known]
        # Pairs are in the order of latents: the place of each among those of its latent.
        firsts = torch.searchsorted(latent, latent)
        place = self.count[latent] + torch.arange(len(latent)) - firsts
        room = place < self.enough
        self._seen[latent[room], place[room]] = sample[room]
        self.count += latent[room].bincount(minlength=len(self.count))
