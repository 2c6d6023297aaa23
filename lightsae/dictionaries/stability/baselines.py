"""Stability beside random dictionaries: what a match by chance comes to."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lightsae.dictionaries.matching.cosine import nearest_cosines
from lightsae.dictionaries.stability.latent_stability import THRESHOLDS, stability_of
from lightsae.errors import LightsaeError

Kind = Literal["uniform", "covariance"]
_STREAM = 0x5DEECE66D
KINDS: tuple[Kind, ...] = get_args(Kind)


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
    if kind not in KINDS:
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

    A random dictionary stands for one of the others, the next one (of the last the first): it has
    as many directions as count there, and crowds where those do.

    Args:
        decoders: W_dec of each seed, [d_sae, d_in].
        thresholds: tau.
        kind: What the random directions are; see `random_directions`.
        counted: Of each dictionary the latents that count, [d_sae] bool; all by default.
        draws: Random dictionaries for each.
        seed: Of them.

    Raises:
        LightsaeError: If they are no dictionaries or draws is smaller than 1.

    Example:
        >>> random_stability([torch.eye(64)[:8], torch.eye(64)[:4]], (-1.0, 0.9)).mean
        (1.0, 0.0)
    """
    if not decoders:
        raise LightsaeError("decoders holds 0, expected one or more")
    if draws < 1:
        raise LightsaeError(f"draws = {draws}, expected at least 1")
    # Off the streams of usual seeds: an autoencoder of the same one starts as the first draw.
    generator = torch.Generator().manual_seed(seed + _STREAM)
    if counted is None:
        counted = [torch.ones(len(decoder), dtype=torch.bool) for decoder in decoders]
    similarity, kept = [], []
    for place, decoder in enumerate(decoders):
        following = (place + 1) % len(decoders)
        stood_for = decoders[following][counted[following].to(decoders[following].device)]
        for _ in range(draws):
            other = random_directions(stood_for, kind, generator=generator).to(decoder.device)
            similarity.append(nearest_cosines(decoder, other).similarity[:, None].cpu())
            kept.append(counted[place].cpu())
    return chance_stability(similarity, thresholds, kept)


def chance_stability(
    similarity: Sequence[Tensor], thresholds: Sequence[float], counted: Sequence[Tensor]
) -> RandomStability:
    """Mean stability from similarities that came about by chance.

    Args:
        similarity: Of each dictionary's latents the largest, [d_sae, 1].
        thresholds: tau.
        counted: Of each the latents that the mean is over, [d_sae] bool.
    """
    shares = stability_of(similarity, thresholds).shares
    means = torch.stack(
        [each[kept].nanmean(dim=0) for each, kept in zip(shares, counted, strict=True)]
    )
    ends = means.nanmean(dim=0), means.amin(dim=0), means.amax(dim=0)
    return RandomStability(*(tuple(each.tolist()) for each in ends))
