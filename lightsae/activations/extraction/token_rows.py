"""From a layer's output for a batch to rows with sample and token indices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models import Inputs
from lightsae.activations.extraction.option_types import TokenKind
from lightsae.activations.extraction.token_selection import select_tokens
from lightsae.activations.shards.dtypes import Array
from lightsae.errors import LightsaeError


class TokenRows(NamedTuple):
    """Rows of a batch, sample after sample.

    Attributes:
        activations: `[R, d_in]`.
        image: Int64 `[R]`, which of the batch's samples each is of.
        token: Int64 `[R]`, position in the layer's own sequence.
        span: Above every position.
    """

    activations: Tensor
    image: Tensor
    token: Tensor
    span: int

    def without(self, image: int | Tensor) -> "TokenRows":
        """The rows of the other samples."""
        keep = self.image != image
        return TokenRows(self.activations[keep], self.image[keep], self.token[keep], self.span)


@dataclass
class TokenChoice:
    """Which tokens of a sample become rows.

    Attributes:
        kind: class, patch, pooled or all.
        prefix_tokens: Number of class and register tokens, if the model does not say it.
        per_image: How many of them at most, drawn anew for each sample; None for all.
        seed: Seed of the draw, beside the number of the sample: order and batches do not matter.

    Raises:
        LightsaeError: If `per_image` is less than 1.

    Example:
        >>> choice = TokenChoice("all", per_image=2)
        >>> rows = choice.rows(torch.zeros(3, 5, 8), torch.zeros(3, 1), nn.Identity(), [4, 0, 2])
        >>> rows.activations.shape, rows.image.tolist()
        (torch.Size([6, 8]), [0, 0, 1, 1, 2, 2])
    """

    kind: TokenKind
    prefix_tokens: int | None = None
    per_image: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_image is not None and self.per_image < 1:
            raise LightsaeError(f"tokens_per_image is {self.per_image}, expected at least 1")

    def rows(
        self,
        output: Tensor,
        inputs: Inputs,
        module: nn.Module,
        numbers: list[int],
        prefix_tokens: int | None = None,
    ) -> TokenRows:
        """Take rows of a layer's output.

        Args:
            output: As `select_tokens` takes it.
            inputs: What the model was given; where its `attention_mask` `[B, T]` has the layer's
                tokens, those at which it is 0 are padding and give no rows.
            module: The model.
            numbers: Number of each sample, for the draw.
            prefix_tokens: Number of class and register tokens of this layer, if it is not that of
                the model.

        Raises:
            LightsaeError: If there are no such tokens, or fewer than `per_image`.
        """
        present = present_tokens(inputs, output)
        prefix = prefix_tokens if self.prefix_tokens is None else self.prefix_tokens
        tokens, positions = select_tokens(output, self.kind, module, prefix, present)
        wanted = torch.ones(tokens.shape[:2], dtype=torch.bool)
        if present is not None:
            here = present.any(1, keepdim=True) if self.kind == "pooled" else present[:, positions]
            wanted &= here.cpu()
        if self.per_image is not None:
            wanted = self._drawn(wanted, numbers)
        image, place = wanted.nonzero(as_tuple=True)
        rows = tokens.flatten(0, 1) if bool(wanted.all()) else tokens[wanted.to(tokens.device)]
        return TokenRows(rows, image, positions[place], int(positions[-1]) + 1)

    def _drawn(self, wanted: Tensor, numbers: list[int]) -> Tensor:
        """So many of the wanted ones of each sample; all, where padding leaves fewer."""
        count = self.per_image or 0
        if count > wanted.shape[1]:
            raise LightsaeError(
                f"tokens_per_image is {count}: the layer gives {wanted.shape[1]} {self.kind} tokens"
            )
        drawn = torch.zeros_like(wanted)
        for row, number in enumerate(numbers):
            places: Array = np.flatnonzero(wanted[row].numpy())
            generator = np.random.default_rng([self.seed, number])
            drawn[row, generator.permutation(places)[:count]] = True
        return drawn


def present_tokens(inputs: Inputs, output: Tensor) -> Tensor | None:
    """Which tokens of a layer's output are no padding, if the inputs say so.

    Returns:
        Bool `[B, T]`, or None.

    Raises:
        LightsaeError: If some are, and the mask is not a whole number of times as long.

    Example:
        >>> inputs = {"input_ids": torch.ones(1, 3), "attention_mask": torch.tensor([[1, 1, 0]])}
        >>> present_tokens(inputs, torch.zeros(1, 3, 8))
        tensor([[ True,  True, False]])
    """
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if mask is None or output.ndim != 3:
        return None
    if mask.shape[1] % output.shape[1] == 0:
        # A layer behind strides, as in Whisper: each token is of as many steps of the input.
        return mask.bool().view(len(mask), output.shape[1], -1).any(2)
    if mask.all():
        return None
    raise LightsaeError(
        f"attention_mask is {list(mask.shape)} with padding, the layer gives "
        f"{list(output.shape[:2])} tokens: which of them are padding is not known; leave "
        "attention_mask out to keep all, or give samples of equal length"
    )


def on_device(inputs: Inputs, device: torch.device) -> Inputs:
    """What a model is given, on a device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    return {name: tensor.to(device) for name, tensor in inputs.items()}
