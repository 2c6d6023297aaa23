"""Which tokens of a layer's output become rows: class, patch, pooled or all."""

from typing import get_args

import torch
from torch import Tensor, nn

from lightsae.activations.extraction.option_types import TokenKind
from lightsae.errors import LightsaeError


def select_tokens(
    output: Tensor,
    kind: str,
    module: nn.Module,
    prefix_tokens: int | None = None,
    present: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Take tokens from a layer's output.

    Args:
        output: `[B, T, d]` (tokens), `[B, H, W, d]` (a map) or `[B, d]` (one vector).
        kind: "class": the first token. "patch": all but the class and register tokens, or each
            place of a map. "pooled": the mean of those. "all": every token.
        module: The model, asked for `num_prefix_tokens` and `cls_token`.
        prefix_tokens: Number of class and register tokens, instead of `num_prefix_tokens`.
        present: Bool `[B, T]`, False for padding, which no mean counts.

    Returns:
        Tokens `[B, T, d]` and int64 `[T]`, the position of each in the layer's own sequence
        (0 for pooled).

    Raises:
        LightsaeError: If the output has no such tokens.

    Example:
        >>> module = nn.Identity()
        >>> module.num_prefix_tokens = 1
        >>> tokens, index = select_tokens(torch.zeros(2, 5, 8), "patch", module)
        >>> tokens.shape, index
        (torch.Size([2, 4, 8]), tensor([1, 2, 3, 4]))
    """
    if kind not in get_args(TokenKind):
        raise LightsaeError(f"tokens is {kind!r}, expected one of {', '.join(get_args(TokenKind))}")
    if prefix_tokens is None:
        prefix_tokens = getattr(module, "num_prefix_tokens", None)
    sequence, prefix = _as_sequence(output, module, kind, prefix_tokens)
    positions = torch.arange(sequence.shape[1])
    if kind == "class":
        return sequence[:, :1], positions[:1]
    if kind == "all":
        return sequence, positions
    patches = sequence[:, prefix:]
    if patches.shape[1] == 0:
        raise LightsaeError(f"tokens is {kind!r}, but the layer gives {prefix} prefix tokens only")
    if kind == "pooled":
        counted = None if present is None else present[:, prefix:]
        return _mean(patches, counted), positions[:1]
    return patches, positions[prefix:]


def _as_sequence(
    output: Tensor, module: nn.Module, kind: str, prefix: int | None
) -> tuple[Tensor, int]:
    """The output as `[B, T, d]` and its number of prefix tokens."""
    if output.ndim == 2:
        if kind == "patch":
            raise LightsaeError("tokens is 'patch', but the layer gives one vector per image")
        return output[:, None], 0
    if output.ndim == 4:
        if kind == "class":
            raise LightsaeError("tokens is 'class', but the layer gives a map without one")
        return output.flatten(1, 2), 0
    if prefix is None and kind != "all":
        raise LightsaeError(
            f"model.prefix_tokens: {type(module).__name__} does not say how many class and "
            "register tokens come before its patches"
        )
    prefix = int(prefix) if prefix is not None else 0
    if kind == "class" and (prefix == 0 or getattr(module, "cls_token", prefix) is None):
        raise LightsaeError(
            "tokens is 'class', but the layer has no class token; all or pooled take its tokens"
        )
    return output, prefix


def _mean(tokens: Tensor, present: Tensor | None) -> Tensor:
    """Mean of those `[B, T, d]` that are present `[B, T]`; 0 where none is."""
    if present is None:
        return tokens.mean(dim=1, keepdim=True)
    weights = present.float()[:, :, None]
    total = (tokens.float() * weights).sum(1, keepdim=True)
    return (total / weights.sum(1, keepdim=True).clamp(min=1)).to(tokens.dtype)
