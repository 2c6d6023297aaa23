"""`LayerCode`: the code of a layer's output, with the axes that its rows come from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.sae import SparseCode
from lightsae.sae.index_checks import integers

Latents = Sequence[int] | Tensor


@dataclass(frozen=True, eq=False)
class LayerCode:
    """What an autoencoder saw at a layer in one forward pass.

    Attributes:
        code: A row for each place, in row-major order of `lead`.
        lead: Sizes of the axes before the features: samples, then tokens or rows and columns.
        activations: What was encoded, [*lead, d_in], where it was asked for.
        start: Position of the first place in the whole sequence, where a cache holds its start.

    Example:
        >>> code = SparseCode(torch.tensor([[2.0], [0.5]]), torch.tensor([[3], [0]]), d_sae=4)
        >>> seen = LayerCode(code, lead=(1, 2))
        >>> seen.to_dense().shape, seen.columns([3]).tolist()
        (torch.Size([1, 2, 4]), [[[2.0], [0.0]]])
    """

    code: SparseCode
    lead: tuple[int, ...]
    activations: Tensor | None = None
    start: int = 0

    def to_dense(self) -> Tensor:
        """Activations of all latents, [*lead, d_sae]."""
        return self.code.to_dense().reshape(*self.lead, self.code.d_sae)

    def columns(self, latents: Latents) -> Tensor:
        """Activations of some latents, [*lead, m].

        Raises:
            LightsaeError: If a latent is not in the dictionary, or there twice.
        """
        wanted = checked_latents(latents, self.code.d_sae).to(self.code.values.device)
        return columns_of(self.code, wanted).reshape(*self.lead, len(wanted))


def columns_of(code: SparseCode, latents: Tensor | None) -> Tensor:
    """Activations of some latents of a code, or of all, [rows, m].

    Args:
        code: The code.
        latents: Different latents of its dictionary, [m] int64 on its device.
    """
    if latents is None:
        return code.to_dense()
    m = len(latents)
    place = torch.full((code.d_sae,), m, device=latents.device)
    place[latents] = torch.arange(m, device=latents.device)
    # One column more takes what is not wanted.
    columns = code.values.new_zeros(len(code), m + 1)
    return columns.scatter_add(1, place[code.indices], code.values)[:, :m]


def checked_latents(latents: Latents, d_sae: int) -> Tensor:
    """Latents as int64, [m].

    Raises:
        LightsaeError: If there are none, one is not in the dictionary, or one is there twice.

    Example:
        >>> checked_latents([3, 0], d_sae=4)
        tensor([3, 0])
        >>> checked_latents([4], d_sae=4)
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: latents must lie in [0, d_sae = 4), got 4
    """
    given = latent_numbers(latents)
    if given.ndim != 1 or given.numel() == 0:
        raise LightsaeError(f"latents has shape {list(given.shape)}, expected one latent or more")
    found = integers("latents", given)
    outside = found[(found < 0) | (found >= d_sae)]
    if len(outside):
        raise LightsaeError(f"latents must lie in [0, d_sae = {d_sae}), got {int(outside[0])}")
    if len(found.unique()) < len(found):
        raise LightsaeError(f"latents are {found.tolist()}, expected different ones")
    return found


def latent_numbers(latents: Latents | int) -> Tensor:
    """Latents as a tensor, one as [1].

    Raises:
        LightsaeError: If they are no numbers.

    Example:
        >>> latent_numbers(3)
        tensor([3])
    """
    try:
        found = torch.as_tensor(latents)
    except (TypeError, ValueError, RuntimeError):
        raise LightsaeError(f"latents is {latents!r}, expected a list of whole numbers") from None
    return found if found.ndim else found.unsqueeze(0)
