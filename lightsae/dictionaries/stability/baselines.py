"""Stability beside random dictionaries: what a match by chance comes to."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightsae.dictionaries.matching.cosine import nearest_cosines
from lightsae.dictionaries.stability.latent_stability import THRESHOLDS, stability_of
from lightsae.errors import LightsaeError

Kind = Literal["uniform", "covariance"]


class RandomStability(NamedTuple):
    """Mean stability of the latents with random dictionaries in place of the other seeds.

    Attributes:
        mean: At each threshold.
        low: Least over dictionaries and draws.
        high: Largest.
    """

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def random_directions(
    decoder: Tensor, kind: Kind = "uniform", *, generator: torch.Generator
) -> Tensor:
    """As many random unit directions as a dictionary has.

    Args:
        decoder: W_dec, [d_sae, d_in].
        kind: "uniform" on the sphere; or "covariance", drawn from the normal distribution with the
            second moments of the decoder's unit rows, so that they crowd where those do.
        generator: On the CPU.

    Returns:
        [d_sae, d_in] float32 on the CPU.

    Raises:
        LightsaeError: If there is no such kind.

    Example:
        >>> flat = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        >>> random_directions(flat, "covariance", generator=torch.Generator().manual_seed(0))[:, 2]
        tensor([0., 0.])
    """
    if kind not in ("uniform", "covariance"):
        raise LightsaeError(f"kind is {kind!r}, expected 'uniform' or 'covariance'")
    rows = decoder.detach().cpu().float()
    drawn = torch.randn(rows.shape, generator=generator)
    if kind == "covariance":
        # sum_j g_j w_j / sqrt(n) has covariance W^T W / n; by W's R when it is the smaller one.
        unit = torch.nn.functional.normalize(rows, dim=1)
        root = torch.linalg.qr(unit, mode="r").R
        drawn = drawn[:, : len(root)] @ root
    return torch.nn.functional.normalize(drawn, dim=1)


def random_stability(
    decoders: Sequence[Tensor],
    thresholds: Sequence[float] = THRESHOLDS,
    kind: Kind = "uniform",
    *,
    counted: Sequence[Tensor] | None = None,
    draws: int = 1,
    seed: int = 0,
) -> RandomStability:
    """Stability of each dictionary's latents where the other seeds are random (ours).

    Args:
        decoders: W_dec of each seed, [d_sae, d_in].
        thresholds: tau.
        kind: What the random directions are; see `random_directions`.
        counted: Of each dictionary the latents that means are over, [d_sae] bool; all by default.
        draws: Random dictionaries for each.
        seed: Of them.

    Raises:
        LightsaeError: If they are no dictionaries or draws is smaller than 1.

    Example:
        >>> random_stability([torch.eye(64)[:8], torch.eye(64)[:4]], (0.0, 0.9)).mean
        (1.0, 0.0)
    """
    if draws < 1:
        raise LightsaeError(f"draws = {draws}, expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    means = []
    for place, decoder in enumerate(decoders):
        kept = slice(None) if counted is None else counted[place].cpu()
        for _ in range(draws):
            other = random_directions(decoder, kind, generator=generator).to(decoder.device)
            nearest = nearest_cosines(decoder, other).similarity
            shares = stability_of([nearest[:, None]], thresholds).shares[0].cpu()[kept]
            means.append(shares.nanmean(dim=0))
    found = torch.stack(means)
    ends = found.nanmean(dim=0), *(getattr(found, end)(dim=0) for end in ("amin", "amax"))
    return RandomStability(*(tuple(each.tolist()) for each in ends))
