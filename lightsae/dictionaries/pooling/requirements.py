"""Which autoencoders can be pooled."""

from collections.abc import Sequence

from lightsae.errors import LightsaeError
from lightsae.sae import BatchTopK, SparseAutoencoder, TopK, Transcoder

# Statistics of equal rows differ by rounding alone.
_SCALE_TOLERANCE = 1e-5


def require_poolable(saes: Sequence[SparseAutoencoder], names: Sequence[str]) -> None:
    """Refuse autoencoders whose latents cannot stand in one dictionary.

    Args:
        saes: The autoencoders.
        names: What messages call them.

    Raises:
        LightsaeError: If there are fewer than two, one is a transcoder, has a selection rule that
            knows latents by their place or their own thresholds, or they differ in d_in,
            normalization, scale, rule or in whether b_dec is subtracted from inputs.
    """
    if len(saes) < 2:
        raise LightsaeError(f"{len(saes)} autoencoders, expected at least two to pool")
    for sae, name in zip(saes, names, strict=True):
        if isinstance(sae, Transcoder):
            raise LightsaeError(f"{name} is a transcoder, expected an autoencoder")
        rule = type(sae.selection)
        if rule not in (TopK, BatchTopK):
            raise LightsaeError(
                f"{name} selects by {rule.__name__}, which knows latents by place or has "
                "thresholds of theirs: TopK and BatchTopK can be pooled"
            )
    require_one_space(saes, names)
    first = saes[0]
    for sae, name in zip(saes[1:], names[1:], strict=True):
        for what, here, there in (
            ("selection", _rule(sae), _rule(first)),
            ("apply_b_dec_to_input", sae.apply_b_dec_to_input, first.apply_b_dec_to_input),
        ):
            if here != there:
                raise LightsaeError(f"{name} has {what} {here}, {names[0]} has {there}")


def require_one_space(saes: Sequence[SparseAutoencoder], names: Sequence[str]) -> None:
    """Refuse autoencoders whose decoder rows are no directions of one space.

    Args:
        saes: The autoencoders.
        names: What messages call them.

    Raises:
        LightsaeError: If they differ in d_in, normalization or scale.

    Example:
        >>> require_one_space([SparseAutoencoder(4, 8, TopK(1)), SparseAutoencoder(5, 8, TopK(1))],
        ...                   ["a", "b"])
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: b has d_in 5, a has 4
    """
    first = saes[0]
    for sae, name in zip(saes[1:], names[1:], strict=True):
        for what in ("d_in", "normalization"):
            here, there = getattr(sae, what), getattr(first, what)
            if here != there:
                raise LightsaeError(f"{name} has {what} {here}, {names[0]} has {there}")
        scale, expected = float(sae.scale), float(first.scale)
        if abs(scale - expected) > _SCALE_TOLERANCE * expected:
            raise LightsaeError(
                f"{name} has scale {scale:.6g}, {names[0]} has {expected:.6g}: they were not "
                "trained on the same rows"
            )


def _rule(sae: SparseAutoencoder) -> str:
    settings = ", ".join(f"{name} = {each}" for name, each in sae.selection.settings().items())
    return f"{type(sae.selection).__name__} {settings}"
