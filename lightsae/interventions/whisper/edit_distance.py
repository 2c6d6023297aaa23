"""Word errors: Levenshtein distance over normalised words."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightsae.extras import require

_FIRST_SIGN = 0xE000  # of the private use area, of which no text makes words


def word_errors(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Errors and words of each pair; the word error rate is the sum of one by that of the other.

    Errors are substitutions, insertions and deletions of the closest alignment. Both texts are
    normalised by Whisper's basic normaliser (arXiv 2212.04356, appendix C): lower case, without
    punctuation and what stands in brackets.

    Args:
        hypotheses: What was transcribed, [n].
        references: What was said, [n].

    Returns:
        Errors and words of the reference, [n] float32 each.

    Raises:
        MissingExtraError: If transformers is not installed.
    """
    from torchmetrics.functional.text import edit_distance

    module = "transformers.models.whisper.english_normalizer"
    normalize = require(module, extra="models").BasicTextNormalizer()
    pairs = [
        (normalize(one).split(), normalize(other).split())
        for one, other in zip(hypotheses, references, strict=True)
    ]
    # The library compares characters: each word becomes one.
    signs: dict[str, str] = {}
    for word in (word for pair in pairs for words in pair for word in words):
        signs.setdefault(word, chr(_FIRST_SIGN + len(signs)))
    said, heard = (
        ["".join(map(signs.__getitem__, pair[side])) for pair in pairs] for side in (1, 0)
    )
    errors = edit_distance(heard, said, reduction="none")
    return errors.float(), torch.tensor([len(words) for _, words in pairs]).float()
