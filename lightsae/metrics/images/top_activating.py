"""The images that activate each latent most, in one pass."""

import torch
from torch import Tensor

from lightsae.metrics.code_inputs import Code, of_rows, required, size, spread
from lightsae.metrics.metric_base import ExactMetric

# A place in a list: [bits of the activation as float64, sample], int64, so that both are exact.
_VACANT = (0, -1)
# Bits of the largest float32.
_LARGEST_BITS = 0x7F7FFFFF


class TopActivations:
    """The strongest images of each latent.

    Attributes:
        values: Activations in descending order [d_sae, n], float64; 0 where there are fewer.
        samples: The images [d_sae, n], int64; -1 where there are fewer.
    """

    def __init__(self, values: Tensor, samples: Tensor) -> None:
        self.values = values
        self.samples = samples


def _ranked(latents: Tensor, values: Tensor, samples: Tensor, d_sae: int, n: int) -> Tensor:
    """Return the lists [d_sae, n, 2] of the strongest distinct samples of each latent."""
    lists = _strongest(latents, values, samples, d_sae, n)
    if _has_repeats(lists):
        kept = _strongest_of_each_sample(latents, values, samples, d_sae)
        lists = _strongest(latents[kept], values[kept], samples[kept], d_sae, n)
    return lists


def _strongest(latents: Tensor, values: Tensor, samples: Tensor, d_sae: int, n: int) -> Tensor:
    """Return the lists [d_sae, n, 2] of the strongest entries of each latent."""
    order = _by_strength(latents, values, samples, d_sae)
    latents, values, samples = latents[order], values[order], samples[order]
    counts = torch.bincount(latents, minlength=d_sae)
    rank = torch.arange(len(latents), device=latents.device) - (counts.cumsum(0) - counts)[latents]
    kept = rank < n
    lists = _vacant(d_sae, n, latents.device)
    places = torch.stack([values[kept].view(torch.long), samples[kept]], dim=1)
    lists[latents[kept], rank[kept]] = places
    return lists


def _by_strength(latents: Tensor, values: Tensor, samples: Tensor, d_sae: int) -> Tensor:
    """Order of entries: by latent, then from the strongest, then by sample."""
    narrow = values.float()
    if d_sae <= 2**31 and bool((narrow == values).all()):
        # Bits of positive floats have their order, so that one sort of integers does.
        strength = narrow.view(torch.int32).long()
        keys = (latents << 31).add_(_LARGEST_BITS - strength)
        keys, order = keys.sort(stable=True)
        if not bool((keys[1:] == keys[:-1]).any()):
            return order
    # Stable sorts, the least significant key first.
    order = samples.sort(stable=True).indices
    order = order[values[order].sort(stable=True, descending=True).indices]
    return order[_narrow(latents, d_sae)[order].sort(stable=True).indices]


def _has_repeats(lists: Tensor) -> bool:
    """Whether a list has a sample twice."""
    samples, order = lists[..., 1].sort(dim=1)
    taken = (lists[..., 0] > 0).gather(1, order)
    return bool(((samples[:, 1:] == samples[:, :-1]) & taken[:, 1:] & taken[:, :-1]).any())


def _strongest_of_each_sample(
    latents: Tensor, values: Tensor, samples: Tensor, d_sae: int
) -> Tensor:
    """Which entries to keep so that none has the latent and sample of another, [kept]."""
    order = values.sort(stable=True, descending=True).indices
    order = order[samples[order].sort(stable=True).indices]
    order = order[_narrow(latents, d_sae)[order].sort(stable=True).indices]
    latents, samples = latents[order], samples[order]
    first = torch.ones_like(latents, dtype=torch.bool)
    first[1:] = (latents[1:] != latents[:-1]) | (samples[1:] != samples[:-1])
    return order[first]


def _narrow(latents: Tensor, d_sae: int) -> Tensor:
    """Latents as narrow integers, which sort several times faster."""
    return latents.to(torch.int16 if d_sae <= 2**15 else torch.int32)


def _vacant(d_sae: int, n: int, device: torch.device | None = None) -> Tensor:
    """Return lists without entries."""
    return torch.tensor(_VACANT, device=device).repeat(d_sae, n, 1)


def _activations(lists: Tensor) -> Tensor:
    """Return the activations of lists [..., 2], float64 [...]."""
    return lists[..., 0].contiguous().view(torch.double)


def _merge_lists(lists: Tensor) -> Tensor:
    """Merge lists [parts, d_sae, n, 2]."""
    _, d_sae, n, _ = lists.shape
    latents = torch.arange(d_sae, device=lists.device).view(1, -1, 1).expand(lists.shape[:-1])
    taken = lists[..., 0] > 0
    return _ranked(latents[taken], _activations(lists[taken]), lists[taken][:, 1], d_sae, n)


def _top_activating_update(
    lists: Tensor, values: Tensor, indices: Tensor, sample_index: Tensor
) -> Tensor:
    """Add a batch of codes to the lists."""
    n = lists.shape[1]
    sample_index, values = spread(sample_index, values), values.double()
    # An activation below the last place of its latent's list cannot enter it.
    candidate = (values > 0) & (values >= _activations(lists[:, -1])[indices])
    touched, latents = _touched(indices[candidate], len(lists))
    lists, old = lists.clone(), lists[touched]
    place = torch.arange(len(touched), device=lists.device).unsqueeze(1).expand(old.shape[:2])
    taken = old[..., 0] > 0
    lists[touched] = _ranked(
        torch.cat([place[taken], latents]),
        torch.cat([_activations(old[taken]), values[candidate]]),
        torch.cat([old[taken][:, 1], sample_index[candidate]]),
        len(touched),
        n,
    )
    return lists


def _touched(latents: Tensor, d_sae: int) -> tuple[Tensor, Tensor]:
    """Return the latents that have entries, or all where most will have, and which each is of."""
    if len(latents) < d_sae:
        found: tuple[Tensor, Tensor] = latents.unique(return_inverse=True)
        return found
    return torch.arange(d_sae, device=latents.device), latents


def _top_activating_compute(lists: Tensor) -> TopActivations:
    """Split the lists into activations and samples."""
    return TopActivations(_activations(lists).clone(), lists[..., 1].clone())


def top_activating(
    values: Code,
    indices: Tensor | None = None,
    sample_index: Tensor | None = None,
    d_sae: int | None = None,
    n: int | None = None,
) -> TopActivations:
    """Find the images with the largest activation of each latent.

    An image with many tokens enters with its largest activation, once. Ties go to the lowest
    sample index.

    Args:
        values: A `SparseCode`, or activations [rows, k], or [entries] with one latent each.
        indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
        sample_index: Image of each row or entry, any integers; behind a `SparseCode` it may be the
            second argument.
        d_sae: Number of latents; a `SparseCode` tells it.
        n: Images per latent.

    Returns:
        Activations and images, [d_sae, n] each.

    Raises:
        LightsaeError: If the shapes disagree, a latent is not in the dictionary or n is not given.

    Example:
        >>> values, indices = torch.tensor([[1.0], [3.0], [2.0]]), torch.tensor([[0], [0], [1]])
        >>> top = top_activating(values, indices, torch.tensor([10, 11, 12]), d_sae=2, n=2)
        >>> top.samples
        tensor([[11, 10],
                [12, -1]])
    """
    n = size("n", required("n", n))
    values, indices, sample_index, d_sae = of_rows(
        values, indices, sample_index, "sample_index", d_sae
    )
    empty = _vacant(d_sae, n, values.device)
    return _top_activating_compute(_top_activating_update(empty, values, indices, sample_index))


class TopActivating(ExactMetric):
    """The images with the largest activation of each latent, over everything seen.

    The state is [d_sae, n, 2] int64 whatever the number of images, and exact: an image whose
    tokens are spread over batches or ranks enters once, with its largest activation. See
    `top_activating`.

    Args:
        d_sae: Number of latents.
        n: Images per latent.
        **kwargs: Passed to `torchmetrics.Metric`.

    Example:
        >>> metric = TopActivating(d_sae=2, n=2)
        >>> metric.update(torch.tensor([[1.0]]), torch.tensor([[0]]), torch.tensor([10]))
        >>> metric.update(torch.tensor([[3.0]]), torch.tensor([[0]]), torch.tensor([11]))
        >>> metric.compute().samples
        tensor([[11, 10],
                [-1, -1]])
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    lists: Tensor

    def __init__(self, d_sae: int, n: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.d_sae = size("d_sae", d_sae)
        self.add_state("lists", _vacant(self.d_sae, size("n", n)), dist_reduce_fx=_merge_lists)

    def update(
        self,
        values: Code,
        indices: Tensor | None = None,
        sample_index: Tensor | None = None,
    ) -> None:
        """Add a batch of codes.

        Args:
            values: A `SparseCode`, or activations [rows, k], or [entries] with one latent each.
            indices: Latents, integers of the shape of `values`; a `SparseCode` has them.
            sample_index: Image of each row or entry, any integers; behind a `SparseCode` it may be
                the second argument.

        Raises:
            LightsaeError: If the shapes disagree or a latent is not in the dictionary.
        """
        values, indices, sample_index, _ = of_rows(
            values, indices, sample_index, "sample_index", self.d_sae
        )
        self.lists = _top_activating_update(self.lists, values, indices, sample_index)

    def compute(self) -> TopActivations:
        """Return the lists of all latents."""
        return _top_activating_compute(self.lists)
