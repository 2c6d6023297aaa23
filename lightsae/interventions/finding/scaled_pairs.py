"""One latent scaled in one sample, many such pairs in a batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightsae.errors import LightsaeError
from lightsae.interventions.finding.model_calls import Inputs, call, samples_of
from lightsae.interventions.hooks.attach import Attached
from lightsae.interventions.hooks.edits import Edit
from lightsae.interventions.hooks.layer_code import LayerCode
from lightsae.interventions.hooks.places import Places


class ScalePairs(Edit):
    """Each sample has factors of its own.

    Args:
        latents: Which, [m] int64.
        factors: Of each sample and latent, [B, m].

    Example:
        >>> edit = ScalePairs(torch.tensor([0, 2]), torch.tensor([[0.0, 1.0], [1.0, 3.0]]))
        >>> edit.new(torch.ones(2, 2))
        tensor([[0., 1.],
                [1., 3.]])
    """

    def __init__(self, latents: Tensor, factors: Tensor) -> None:
        super().__init__(latents)
        self.factors = factors

    def new(self, old: Tensor) -> Tensor:
        """Activations times the factors of their sample."""
        if len(old) != len(self.factors):
            raise LightsaeError(
                f"the layer saw {len(old)} samples, expected {len(self.factors)}: it has to see "
                "those of the inputs one by one"
            )
        factors = self.factors.to(old)
        return old * factors.reshape(len(old), *[1] * (old.ndim - 2), -1)


class Pairs(NamedTuple):
    """Samples and latents that fire in them, by sample, then by latent.

    Attributes:
        samples: [pairs] int64.
        latents: [pairs] int64.
        batch: Number of samples that they are of.
    """

    samples: Tensor
    latents: Tensor
    batch: int


def firing_pairs(
    seen: LayerCode,
    latents: Tensor,
    layer: str = "",
    positions: Sequence[int] | None = None,
    present: Tensor | None = None,
) -> Pairs:
    """Which of some latents fire in which samples of a pass.

    Args:
        seen: The code.
        latents: Which, [m] int64.
        layer: Its name, for messages.
        positions: At which places; by default any.
        present: Where samples are not padded, bool [B, T]; nothing fires in padding.

    Raises:
        LightsaeError: If the layer has no such positions.

    Example:
        >>> from lightsae.sae import SparseCode
        >>> code = SparseCode(torch.tensor([[2.0], [4.0], [0.0]]), torch.tensor([[1]] * 3), d_sae=2)
        >>> firing_pairs(LayerCode(code, lead=(3,)), torch.tensor([1])).samples
        tensor([0, 1])
    """
    code, batch = seen.code, seen.lead[0]
    wanted = torch.zeros(code.d_sae, dtype=torch.bool, device=code.indices.device)
    wanted[latents.to(wanted.device)] = True
    fires = (code.values > 0) & wanted[code.indices]
    if positions is not None:
        here = Places(positions).rows(seen.lead, None, layer)
        fires &= here.flatten().to(fires.device).unsqueeze(1)
    if present is not None:
        fires &= present.flatten().to(fires.device).unsqueeze(1)
    row, place = torch.nonzero(fires, as_tuple=True)
    sample = row // max(len(code) // max(batch, 1), 1)
    key = (sample * code.d_sae + code.indices[row, place]).unique()
    return Pairs(key // code.d_sae, key % code.d_sae, batch)


def scaled_outputs(
    attached: Attached,
    model: nn.Module,
    layer: str,
    inputs: Inputs,
    pairs: Pairs,
    factor: float,
    read: Callable[[Any, int], Tensor],
    *,
    batch_size: int,
    positions: Sequence[int] | None = None,
    present: Tensor | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """What comes out where the latent of a pair is scaled in its sample, part by part.

    Args:
        attached: The hooks.
        model: The model.
        layer: Where.
        inputs: Of the samples.
        pairs: Which latents in which samples.
        factor: 0 ablates.
        read: Makes a row for each sample of the model's output and their number.
        batch_size: Pairs at once.
        positions: At which places; by default all.
        present: Where samples are not padded, bool [B, T]; padding is left as it is.

    Yields:
        The pairs, and of each what was read, [part, ...].
    """
    for start in range(0, len(pairs.samples), batch_size):
        part = slice(start, min(start + batch_size, len(pairs.samples)))
        samples = pairs.samples[part]
        latents, place = pairs.latents[part].unique(return_inverse=True)
        factors = torch.ones(len(samples), len(latents), device=samples.device)
        factors[torch.arange(len(samples), device=samples.device), place] = factor
        mask = None if present is None else present[samples.to(present.device)]
        edit = ScalePairs(latents, factors)
        with attached.edit(edit, layer, positions=positions, mask=mask):
            result = call(model, samples_of(inputs, samples, pairs.batch))
        yield part, read(result, len(samples))
