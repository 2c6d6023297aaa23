"""Whether a latent fires where its name is the token, or the next one; where it fires most."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightsae.dictionaries.examples.vocabulary_names.anchored import Fitted, encoded
from lightsae.dictionaries.examples.vocabulary_names.text_model import Activations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOP = 20
_AROUND = 5


@dataclass(frozen=True, eq=False)
class Detection:
    """Named latents that fire on at least 20 rows, and the 20 on which each fires most.

    Attributes:
        latents: [m].
        tokens: Number of the token that names each, [m].
        rows: The strongest first [m, 20].
        current: Share of these rows at which the name is the token, [m].
        following: Share at which it is the next one, [m].
        by_chance: Means of both shares with the names dealt out anew.
    """

    latents: Tensor
    tokens: Tensor
    rows: Tensor
    current: Tensor
    following: Tensor
    by_chance: tuple[float, float]


def detect(fitted: Fitted, found: Activations, seed: int) -> Detection:
    """Compare the names of an autoencoder's latents with the tokens on which they fire.

    Args:
        fitted: The autoencoder and its names; word j of the vocabulary is token j.
        found: Activations of text that nothing was fitted to.
        seed: Of the names that are dealt out anew.
    """
    dense = encoded(fitted.sae, found.rows).to_dense()
    often = (dense > 0).sum(dim=0) >= _TOP
    latents = (fitted.names.named & often).nonzero().squeeze(1)
    rows = dense[:, latents].topk(min(_TOP, len(dense)), dim=0).indices.T
    tokens = fitted.names.index[latents]
    # The last token of a window has no next one here.
    current = found.windows[:, 1:].flatten()
    following = pad(found.windows[:, 2:], (0, 1), value=-1).flatten()
    generator = torch.Generator().manual_seed(seed)
    dealt = tokens[torch.randperm(len(tokens), generator=generator)]
    chance = [float(_share(rows, each, dealt).mean()) for each in (current, following)]
    return Detection(
        latents, tokens, rows, _share(rows, current, tokens), _share(rows, following, tokens),
        by_chance=(chance[0], chance[1]),
    )  # fmt: skip


def _share(rows: Tensor, texts: Tensor, tokens: Tensor) -> Tensor:
    return (texts[rows] == tokens[:, None]).float().mean(dim=1)


def context(found: Activations, row: int, tokenizer: "PreTrainedTokenizerBase") -> str:
    """The text around a row, on one line, its token in brackets."""
    window, at = found.place(row)
    numbers = found.windows[window]
    before, after = numbers[max(at - _AROUND, 0) : at], numbers[at + 1 : at + 1 + _AROUND]
    parts = (tokenizer.decode(part) for part in (before, numbers[at : at + 1], after))
    return "{}[{}]{}".format(*parts).replace("\n", "/")
