"""A vocabulary of the tokens of a causal language model."""

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models.libraries.hub_access import hub_or_cache
from lightsae.activations.extraction.models.options import ModelOptions
from lightsae.dictionaries.naming.vocabulary import Vocabulary
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.extras import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Embeddings = Literal["input", "output"]


def load_token_vocabulary(
    options: ModelOptions, embeddings: Embeddings = "input", *, subtract_mean: bool = False
) -> Vocabulary:
    """The tokens of a causal language model of transformers, by name.

    Args:
        options: Its name, or a folder that `save_pretrained` wrote, with the tokenizer; library
            `transformers`.
        embeddings: See `token_vocabulary`.
        subtract_mean: See `token_vocabulary`.

    Raises:
        LightsaeError: If it is not such a model, or cannot be loaded.
        MissingExtraError: If transformers is not installed.
    """
    if options.library != "transformers" or options.name is None:
        raise LightsaeError(
            f"model is {options.title or 'not given'}, expected the name of a causal language "
            "model with model.library transformers"
        )
    transformers = require("transformers", extra="models")
    with hub_or_cache(options):
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                options.name, dtype=torch.float32, **options.arguments
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(options.name)
        except Exception as error:
            raise LightsaeError(
                f"model.name {options.name}: expected a causal language model of transformers "
                f"with its tokenizer: {reason(error)}"
            ) from error
    found = token_vocabulary(model, tokenizer, embeddings, subtract_mean=subtract_mean)
    found.about["model"] = options.title
    return found


def token_vocabulary(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    embeddings: Embeddings = "input",
    *,
    subtract_mean: bool = False,
) -> Vocabulary:
    """The tokens of a causal language model with their embeddings.

    VASAE (arXiv 2606.27941) names latents by the token embeddings; those of the output are what
    the model's logits are products with. A token is called by its text; several of one text, or
    of none, by what the tokenizer calls them. Tokens whose embedding is zero, such as padding, are
    left out, and so are rows that no token of the tokenizer has.

    Args:
        model: A model of transformers.
        tokenizer: Its tokenizer.
        embeddings: Those of the input or of the output; tied ones are the same.
        subtract_mean: Less the mean of all (ours): token embeddings share a direction, which
            else is in every cosine.

    Raises:
        LightsaeError: If the model has no such embeddings, or the tokenizer has tokens for less
            than half of them.
    """
    W = _weights(model, embeddings)
    # Added tokens may leave gaps between the numbers.
    numbers = sorted(number for number in set(tokenizer.get_vocab().values()) if number < len(W))
    if 2 * len(numbers) < len(W):
        # What transformers makes where the files of a tokenizer are missing has next to no tokens.
        raise LightsaeError(
            f"the tokenizer has {len(numbers)} tokens for {len(W)} embeddings: is it the model's?"
        )
    kept = W.detach()[torch.tensor(numbers, device=W.device)].float().cpu()
    present = (kept != 0).any(dim=1)
    kept = kept[present]
    names = _texts(tokenizer, numbers)
    return Vocabulary(
        [name for name, is_there in zip(names, present.tolist(), strict=True) if is_there],
        kept - kept.mean(dim=0) if subtract_mean else kept,
        {"tokens": embeddings, "subtract_mean": subtract_mean},
    )


def _weights(model: Any, embeddings: Embeddings) -> Tensor:
    """A matrix of embeddings [tokens, d]."""
    if embeddings not in ("input", "output"):
        raise LightsaeError(f"embeddings is {embeddings!r}, expected input or output")
    part = model.get_input_embeddings() if embeddings == "input" else model.get_output_embeddings()
    weight = getattr(part, "weight", None)
    if not isinstance(part, nn.Module) or not isinstance(weight, Tensor) or weight.ndim != 2:
        raise LightsaeError(f"{type(model).__name__} has no {embeddings} embeddings of tokens")
    return weight


def _texts(tokenizer: Any, numbers: list[int]) -> list[str]:
    """Different names of all tokens."""
    texts = [tokenizer.decode([number]) for number in numbers]
    pieces = tokenizer.convert_ids_to_tokens(numbers)
    count = Counter(texts)
    # Half a character decodes to the sign for what is no text.
    found = [
        text if text and count[text] == 1 and "\ufffd" not in text else str(piece)
        for text, piece in zip(texts, pieces, strict=True)
    ]
    count = Counter(found)
    return [
        name if name and count[name] == 1 else f"{name}#{number}"
        for name, number in zip(found, numbers, strict=True)
    ]
