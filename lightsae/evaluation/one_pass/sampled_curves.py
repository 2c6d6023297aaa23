"""Rank profile and k-robustness of a sample of rows."""

import torch
from torch import Tensor

from lightsae.metrics import KRobustness, k_around
from lightsae.sae import SparseAutoencoder, SparseCode

_TIMES_K = 4
_ROWS = 1024
Curve = dict[str, list[float]]


@torch.no_grad()
def sampled_curves(
    sae: SparseAutoencoder, rows: Tensor, targets: Tensor | None = None
) -> dict[str, Curve]:
    """Both curves from one encoding with 4 k latents a row.

    The leading places of a code with 4 k latents are the codes with fewer, and before Top-k the
    activations in descending order are its values.

    Args:
        sae: The autoencoder.
        rows: Inputs `[n, d_in]`.
        targets: What is reconstructed of them `[n, d_out]`; the inputs if left out.

    Returns:
        `rank_profile` with columns rank and activation, and `k_robustness` with k, nmse and r2;
        see `rank_profile` and `KRobustness` of the metrics.
    """
    k, d_sae = sae.selection.k, sae.d_sae
    ranks, points = min(_TIMES_K * k, d_sae), k_around(k, d_sae)
    total = torch.zeros(ranks, dtype=torch.float64, device=rows.device)
    robustness = KRobustness(sae.d_out, points).to(rows.device)
    wanted = rows if targets is None else targets
    for part, of_part in zip(rows.split(_ROWS), wanted.split(_ROWS), strict=True):
        x = part.to(sae.W_enc)
        code = sae.encode(x, k=ranks)
        total += code.values.double().sum(0)
        x_hat = _reconstructions(sae, code, x, points)
        robustness.update(x_hat=x_hat, x=of_part.to(sae.W_enc))
    curve = robustness.compute()
    activation = total / len(rows)
    return {
        "rank_profile": {
            "rank": list(range(1, ranks + 1)),
            "activation": activation.tolist(),
        },
        "k_robustness": {
            "k": curve.k.tolist(),
            "nmse": curve.nmse.tolist(),
            "r2": curve.r2.tolist(),
        },
    }


def _reconstructions(
    sae: SparseAutoencoder, code: SparseCode, x: Tensor, points: tuple[int, ...]
) -> Tensor:
    """Reconstructions with the k largest of a code, for several k, `[points, n, d_out]`.

    Each adds what the places after the one before it contribute, so every place is decoded once.
    """
    nothing = sae.decode(_places(code, 0, 1, times=0.0), x)
    found, x_hat, done = [], nothing, 0
    for k in points:
        x_hat = x_hat + (sae.decode(_places(code, done, k), x) - nothing)
        found.append(x_hat)
        done = k
    return torch.stack(found)


def _places(code: SparseCode, first: int, last: int, times: float = 1.0) -> SparseCode:
    """Some places of a code."""
    values = code.values[:, first:last] * times
    return SparseCode(values, code.indices[:, first:last], code.d_sae, code.statistics)
