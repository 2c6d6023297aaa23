"""Floating-point operations of training a Top-k autoencoder, from which budgets are counted."""

from lightsae.errors import LightsaeError


def flops_per_token(d_in: int, d_sae: int, k: int, *, decoded: int | None = None) -> int:
    """Operations per training row, 2 for a multiply-add (the derivation is ours).

    The encoder's product is dense; nothing else is, since only k latents of a row have a value and
    only these get a gradient:

    - pre-activations W_enc x: 2 d_in d_sae
    - reconstruction from k rows of W_dec: 2 d_in k
    - gradients of the k values, products of the residual with these rows: 2 d_in k
    - gradient of W_dec, the residual added to k rows: 2 d_in k
    - gradient of W_enc, the input added to k rows: 2 d_in k

    in all 2 d_in d_sae + 8 d_in k. Dense training would take 10 d_in d_sae (6 per parameter and
    token would be 12, with a gradient of the input that nobody needs). Not counted: the selection
    (comparisons), the optimizer (elementwise, about a dozen for each of 2 d_in d_sae parameters and
    step: per row 12 / B of the product in a batch of B), AuxK (8 d_in k_aux where latents are dead)
    and regularizers, whose encoder gradient is dense.

    Args:
        d_in: Width of the activations.
        d_sae: Latents of the dictionary.
        k: Latents per row.
        decoded: Latents per row that are decoded, by default k; 4k with `MultiTopK`.

    Raises:
        LightsaeError: If one of them is below 1.

    Example:
        >>> flops_per_token(64, 512, 8)
        69632
    """
    rows = k if decoded is None else decoded
    for name, value in (("d_in", d_in), ("d_sae", d_sae), ("k", k), ("decoded", rows)):
        if value < 1:
            raise LightsaeError(f"{name} is {value}, expected at least 1")
    return 2 * d_in * d_sae + 8 * d_in * rows


def affordable_latents(
    d_in: int, k: int, tokens: float, flops: float, *, decoded: int | None = None
) -> float:
    """Latents that a budget pays for at a number of tokens; below 1 where it pays for none.

    Args:
        d_in: Width of the activations.
        k: Latents per row.
        tokens: Training rows.
        flops: The budget.
        decoded: See `flops_per_token`.

    Example:
        >>> affordable_latents(64, 8, 1000, 1000 * flops_per_token(64, 512, 8))
        512.0
    """
    return (flops / tokens - 8 * d_in * (k if decoded is None else decoded)) / (2 * d_in)
