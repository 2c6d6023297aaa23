"""Unique latents of several autoencoders as an autoencoder."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lightsae.dictionaries.pooling.firing_rows import FiringRows
from lightsae.dictionaries.pooling.requirements import require_poolable
from lightsae.dictionaries.pooling.unique_latents import (
    Order,
    UniqueLatents,
    require_settings,
    unique_latents,
)
from lightsae.dictionaries.stability.latent_stability import latent_stability
from lightsae.errors import LightsaeError
from lightsae.sae import SparseAutoencoder


@torch.no_grad()
def pool(
    saes: Sequence[SparseAutoencoder],
    batches: Iterable[Tensor],
    *,
    d_sae: int | None = None,
    cosine: float = 0.7,
    iou: float = 0.7,
    order: Order = "stability",
    names: Sequence[str] | None = None,
) -> SparseAutoencoder:
    """Pool the unique latents of several autoencoders (ours, after arXiv 2606.12138).

    Duplicates are found by `unique_latents`; stability is the mean over thresholds of
    `latent_stability`. Every latent keeps its encoder row, its decoder row and its
    pre-activations: b_dec is the mean of the autoencoders', and b_enc makes up for what that
    changes. What the latents reconstruct together is not tuned yet: train on, as `lightsae pool`
    does.

    Args:
        saes: Autoencoders of one scale and rule; see `require_poolable`.
        batches: Raw activations [B, d_in], read once.
        d_sae: Latents to keep; all unique ones if left out.
        cosine: See `unique_latents`.
        iou: See `unique_latents`.
        order: See `unique_latents`; cut to d_sae, it decides which are kept.
        names: What messages and provenance call the autoencoders; their numbers if left out.

    Returns:
        An autoencoder whose provenance has of each latent, under "pooled", the number of its
        autoencoder (`dictionary`), its number there (`latent`), its stability and its firings.

    Raises:
        LightsaeError: If they cannot be pooled, there are no rows, or fewer than d_sae unique
            latents.
        MissingExtraError: If scipy is not installed.

    Example:
        >>> from lightsae.sae import TopK
        >>> saes = [SparseAutoencoder(4, 8, TopK(2)) for _ in range(2)]
        >>> saes[1].load_state_dict(saes[0].state_dict())
        <All keys matched successfully>
        >>> pooled = pool(saes, [torch.randn(64, 4)])
        >>> pooled.d_sae <= 8, set(pooled.provenance["pooled"]["stability"])
        (True, {1.0})
    """
    names = [f"autoencoder {place}" for place in range(len(saes))] if names is None else list(names)
    require_poolable(saes, names)
    require_settings(cosine, iou, order, d_sae)
    if d_sae is not None and d_sae < saes[0].selection.k:
        raise LightsaeError(
            f"d_sae is {d_sae}, the autoencoders select k = {saes[0].selection.k} latents per row"
        )
    firings = _firings(saes, batches)
    decoders = [sae.W_dec for sae in saes]
    shares = torch.cat([each.cpu() for each in latent_stability(decoders).shares])
    found = unique_latents(
        decoders, shares.mean(dim=1), firings, cosine=cosine, iou=iou, order=order, most=d_sae
    )
    if d_sae is not None and len(found.latent) < d_sae:
        raise LightsaeError(
            f"d_sae is {d_sae}, the {len(saes)} autoencoders have {len(found.latent)} unique "
            "latents that fire"
        )
    pooled = pooled_autoencoder(saes, found)
    pooled.provenance = {
        "pooled": {
            "autoencoders": names, "cosine": cosine, "iou": iou, "order": order,
            "rows": firings.rows,
            **{name: values.tolist() for name, values in found._asdict().items()},
        }
    }  # fmt: skip
    return pooled


@torch.no_grad()
def pooled_autoencoder(
    saes: Sequence[SparseAutoencoder], latents: UniqueLatents
) -> SparseAutoencoder:
    """The chosen latents of some autoencoders as one.

    Args:
        saes: As for `pool`.
        latents: Which.

    Raises:
        LightsaeError: If there are fewer of them than the rule selects.
    """
    first = saes[0]
    rule = type(first.selection)(**first.selection.settings())
    pooled = SparseAutoencoder(
        first.d_in, len(latents.latent), rule, first.normalization, first.apply_b_dec_to_input
    ).to(first.W_enc)
    pooled.scale.copy_(first.scale)
    pooled.b_dec.copy_(torch.stack([sae.b_dec.double() for sae in saes]).mean(dim=0))
    for place, sae in enumerate(saes):
        here = latents.dictionary.to(first.W_enc.device) == place
        chosen = latents.latent.to(first.W_enc.device)[here]
        pooled.W_enc[here], pooled.W_dec[here] = sae.W_enc[chosen], sae.W_dec[chosen]
        b_enc = sae.b_enc[chosen].double()
        if sae.apply_b_dec_to_input:
            moved = pooled.b_dec.double() - sae.b_dec.double()
            b_enc += sae.W_enc[chosen].double() @ moved
        pooled.b_enc[here] = b_enc.to(pooled.b_enc)
    return pooled


def _firings(saes: Sequence[SparseAutoencoder], batches: Iterable[Tensor]) -> FiringRows:
    """What the autoencoders fire on."""
    firings = FiringRows([sae.d_sae for sae in saes])
    for batch in batches:
        firings.update([sae.encode(batch.to(sae.W_enc)) for sae in saes])
    if not firings.rows:
        raise LightsaeError("batches: there are no rows, expected some to find firings on")
    return firings
