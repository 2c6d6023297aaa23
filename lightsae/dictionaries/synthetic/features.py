"""Features of which everything is known, and activations made of them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightsae.errors import LightsaeError


class SyntheticRows(NamedTuple):
    """Activations, and what they are made of.

    Attributes:
        activations: [rows, d_in] float32.
        amounts: Of each isolated feature, 0 where it is not there, [rows, isolated] float32.
        parts: Of each group the coordinates of what it adds, in its basis, [rows, groups, rank]
            float32; 0 where it is not there.
    """

    activations: Tensor
    amounts: Tensor
    parts: Tensor


@dataclass(frozen=True, eq=False)
class SyntheticFeatures:
    """A ground truth: isolated features and low-rank groups; `synthetic_features` draws one.

    Attributes:
        directions: Of the isolated features, unit rows, [isolated, d_in] float32.
        bases: Of each group, orthonormal rows, [groups, rank, d_in] float32.
        members: Of each group some directions in its subspace, unit rows, [groups, members, d_in].
            Nothing prefers them to others: an autoencoder finds them by chance alone.
        frequencies: Share of rows in which each isolated feature is, [isolated] float32.
        group_frequencies: Likewise of groups, [groups] float32.
        noise: Expected norm of the noise in a row.
        spread: Magnitudes are uniform in 1 - spread to 1 + spread.
    """

    directions: Tensor
    bases: Tensor
    members: Tensor
    frequencies: Tensor
    group_frequencies: Tensor
    noise: float
    spread: float

    def sample(self, rows: int, seed: int = 0) -> SyntheticRows:
        """Draw activations.

        `x = sum_i b_i m_i d_i + sum_g b_g m_g U_g^T u + noise`, with b in {0, 1} by frequency, m
        the magnitude, and u uniform on the unit sphere of the group: turned within its subspace, a
        group is the same.

        Args:
            rows: How many.
            seed: Of them; other seeds give other rows of the same features.

        Raises:
            LightsaeError: If rows is smaller than 1.
        """
        if rows < 1:
            raise LightsaeError(f"rows = {rows}, expected at least 1")
        generator = torch.Generator().manual_seed(seed)
        amounts = self._amounts(rows, self.frequencies, generator)
        of_groups = self._amounts(rows, self.group_frequencies, generator)
        drawn = torch.randn(rows, *self.bases.shape[:2], generator=generator)
        parts = torch.nn.functional.normalize(drawn, dim=2) * of_groups[:, :, None]
        d_in = self.directions.shape[1]
        x = torch.randn(rows, d_in, generator=generator) * (self.noise / d_in**0.5)
        x += amounts @ self.directions + parts.flatten(1) @ self.bases.reshape(-1, d_in)
        return SyntheticRows(x, amounts, parts)

    def _amounts(self, rows: int, frequencies: Tensor, generator: torch.Generator) -> Tensor:
        there = torch.rand(rows, len(frequencies), generator=generator) < frequencies
        drawn = torch.rand(rows, len(frequencies), generator=generator)
        return there * (1 + self.spread * (2 * drawn - 1))


def synthetic_features(
    d_in: int = 64,
    *,
    isolated: int = 32,
    groups: int = 2,
    group_rank: int = 8,
    group_members: int = 16,
    active: float = 3.0,
    exponent: float = 0.5,
    group_frequency: float = 0.25,
    noise: float = 0.05,
    spread: float = 0.5,
    seed: int = 0,
) -> SyntheticFeatures:
    """Draw features of both kinds that arXiv 2606.12138 tells apart: latents, and only subspaces.

    Isolated features have directions of their own, which every seed can find. A group is a subspace
    in which activations have no preferred direction, so that any basis of it serves as well: its
    span can be found again, its latents cannot. The generator is ours.

    All directions are orthonormal while they fit into d_in; beyond, each d_in of them are, and the
    sets are turned at random to each other.

    Args:
        d_in: Width of the activations.
        isolated: Isolated features.
        groups: Low-rank groups.
        group_rank: Dimensions of each, at least 2.
        group_members: Directions in each that stand for latents one might look for.
        active: Isolated features in a row, on average.
        exponent: Of the frequency law: the n-th isolated feature is in a share of rows
            proportional to n^-exponent.
        group_frequency: Share of rows in which a group is.
        noise: Expected norm of the noise in a row; a feature has 1 on average.
        spread: Of magnitudes, in [0, 1).
        seed: Of the directions.

    Raises:
        LightsaeError: If a size or a share is out of range.

    Example:
        >>> truth = synthetic_features(16, isolated=4, groups=1, group_rank=3, active=1.0)
        >>> truth.directions.shape, truth.bases.shape, truth.members.shape
        (torch.Size([4, 16]), torch.Size([1, 3, 16]), torch.Size([1, 16, 16]))
        >>> truth.sample(5).activations.shape
        torch.Size([5, 16])
    """
    for name, size, least in (
        ("d_in", d_in, 2), ("isolated", isolated, 0), ("groups", groups, 0),
        ("group_rank", group_rank, 2), ("group_members", group_members, 1),
    ):  # fmt: skip
        if size < least:
            raise LightsaeError(f"{name} = {size}, expected at least {least}")
    if isolated + groups < 1:
        raise LightsaeError("isolated and groups are 0, expected a feature")
    if group_rank > d_in:
        raise LightsaeError(f"group_rank = {group_rank} is larger than d_in = {d_in}")
    if not 0 <= group_frequency <= 1:
        raise LightsaeError(f"group_frequency = {group_frequency}, expected a share from 0 to 1")
    if not (noise >= 0 and 0 <= spread < 1):
        raise LightsaeError(f"noise = {noise}, spread = {spread}: expected >= 0 and in [0, 1)")
    generator = torch.Generator().manual_seed(seed)
    rows = _directions(isolated + groups * group_rank, d_in, generator)
    bases = torch.linalg.qr(rows[isolated:].reshape(groups, group_rank, d_in).mT).Q.mT.contiguous()
    coordinates = torch.randn(groups, group_members, group_rank, generator=generator)
    return SyntheticFeatures(
        rows[:isolated].clone(),
        bases,
        torch.nn.functional.normalize(coordinates, dim=2) @ bases,
        _frequencies(isolated, active, exponent),
        torch.full((groups,), group_frequency),
        noise,
        spread,
    )


def _directions(count: int, d_in: int, generator: torch.Generator) -> Tensor:
    """Unit rows of which each d_in are orthonormal, [count, d_in]."""
    sets = [
        torch.linalg.qr(torch.randn(d_in, d_in, generator=generator)).Q.T
        for _ in range(-(-count // d_in))
    ]
    return torch.cat(sets)[:count]


def _frequencies(isolated: int, active: float, exponent: float) -> Tensor:
    law = torch.arange(1, isolated + 1).double() ** -exponent
    found = active * law / law.sum()
    if isolated and not 0 < float(found.max()) <= 1:
        raise LightsaeError(
            f"active = {active} and exponent = {exponent} let the most frequent feature be in a "
            f"share {float(found.max()):.3g} of rows, expected above 0 and at most 1"
        )
    return found.float()
