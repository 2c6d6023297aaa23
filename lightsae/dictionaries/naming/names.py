"""Names of latents from a vocabulary: the word that a decoder row is most parallel to."""

import torch
from torch import Tensor

from lightsae.dictionaries.naming.candidates import nearest_candidates
from lightsae.dictionaries.naming.latent_names import LatentNames
from lightsae.dictionaries.naming.vocabulary import Vocabulary
from lightsae.errors import LightsaeError


def name_latents(
    W_dec: Tensor,
    vocabulary: Vocabulary,
    cutoff: float = 0.8,
    *,
    alive: Tensor | None = None,
    candidates: int = 1,
) -> LatentNames:
    """Call each latent by the word whose direction has the largest cosine with its decoder row.

    A latent's name is `argmax_j cos(d_i, e_j)`, accepted where that cosine is `cutoff` or more
    (VASAE, arXiv 2606.27941: .8). Below it the latent has no name; its nearest word is kept.
    Cosines are computed in blocks.

    Args:
        W_dec: Decoder rows [d_sae, d].
        vocabulary: Words and directions of the same space.
        cutoff: Least cosine of a name, in (-1, 1): rounding leaves equal directions below 1.
        alive: Latents that fire [d_sae], bool; by default those whose decoder row is not zero. Only
            they are named and counted.
        candidates: How many of the nearest words to keep.

    Raises:
        LightsaeError: If the widths differ, or a number or a shape is not as said.

    Example:
        >>> words = Vocabulary(["left", "up"], torch.tensor([[-1.0, 0.0], [0.0, 1.0]]))
        >>> found = name_latents(torch.tensor([[0.0, 3.0], [1.0, 1.0], [-5.0, 1.0]]), words)
        >>> found.names, found.nearest
        (['up', None, 'left'], ['up', 'up', 'left'])
    """
    require_cutoff(cutoff)
    found = nearest_candidates(W_dec, vocabulary.vectors.to(W_dec.device), candidates)
    if alive is None:
        alive = (W_dec != 0).any(dim=1)
    if alive.dtype != torch.bool or list(alive.shape) != [len(W_dec)]:
        raise LightsaeError(
            f"alive is {alive.dtype} {list(alive.shape)}, expected bool [d_sae = {len(W_dec)}]"
        )
    return LatentNames(
        words=list(vocabulary.names),
        candidates=found.index.cpu(),
        scores=found.similarity.float().cpu(),
        alive=alive.cpu(),
        cutoff=cutoff,
        about=dict(vocabulary.about),
    )


def require_cutoff(cutoff: float) -> None:
    """Refuse what is no cosine that a name could have."""
    if not -1 < cutoff < 1:
        raise LightsaeError(f"cutoff is {cutoff}, expected a cosine in (-1, 1)")
