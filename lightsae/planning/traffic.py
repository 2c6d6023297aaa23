"""Bytes that one rank sends in an optimizer step.

Data parallel over R ranks, gradients of P elements summed in a ring:

    2 (R - 1) / R * 4 P

Latent parallel over R ranks, batches of B rows that all of them work on:

    inputs          (R - 1) / R * 4 B d_in        each rank reads B / R rows and sends them round
    candidates      (R - 1) 8 B k                 k values and indices of each row, to every rank
    reconstruction  2 (R - 1) / R * 4 B d_in      one sum of the local decodes
    gradients       2 (R - 1) / R * 4 d_in        of b_dec, which every rank holds

so B (d_in + k R) but for constants, whatever d_sae is. Nothing else goes back: every rank has the
residual, and with it the gradients of its own latents. Reg 2 adds the two norms of every row.

Definitions ours. Values are float32, indices int32.
"""

from typing import NamedTuple

from lightsae.planning.shape import Shape


class Traffic(NamedTuple):
    """What is sent for one purpose.

    Attributes:
        name: The purpose.
        over: data or latent, the ranks that take part.
        bytes: Sent by a rank in an optimizer step.
    """

    name: str
    over: str
    bytes: int


def traffic_of(shape: Shape, data: int, latent: int) -> tuple[Traffic, ...]:
    """What a rank sends in an optimizer step.

    Args:
        shape: The sizes.
        data: Ranks that have batches of their own.
        latent: Ranks that share a dictionary.

    Example:
        >>> shape = Shape(d_in=768, d_sae=1 << 16, k=32, batch=4096)
        >>> sum(each.bytes for each in traffic_of(shape, 1, 4)) == sum(
        ...     each.bytes for each in traffic_of(shape._replace(d_sae=1 << 20), 1, 4))
        True
        >>> [each.name for each in traffic_of(shape, 4, 1)]
        ['gradients']
    """
    B, D, k = shape.batch * shape.accumulate, shape.d_in, shape.k
    sent: list[tuple[str, str, float]] = []
    if data > 1:
        own = -(-shape.d_sae // latent)
        elements = 2 * own * D + own + D
        sent.append(("gradients", "data", _ring(data) * 4 * elements))
    if latent > 1:
        sent += [
            ("inputs", "latent", _ring(latent) / 2 * 4 * B * D),
            ("candidates", "latent", (latent - 1) * 8 * B * k),
            ("reconstruction", "latent", _ring(latent) * 4 * B * D),
            ("gradient of b_dec", "latent", _ring(latent) * 4 * D),
        ]
        if shape.regularizer in ("l1_l2_ratio", "dense"):
            sent.append(("norms of rows", "latent", _ring(latent) * 8 * B))
    return tuple(Traffic(name, over, round(size)) for name, over, size in sent)


def _ring(ranks: int) -> float:
    """How often each byte of a sum leaves a rank: reduce-scatter, then all-gather."""
    return 2 * (ranks - 1) / ranks
