"""The text part of a model of images and text, and how its images' part reaches the joint space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightsae.activations.extraction.models.libraries.hub_access import hub_or_cache
from lightsae.activations.extraction.models.load import load_whole_model
from lightsae.activations.extraction.models.options import ModelOptions
from lightsae.error_messages import reason
from lightsae.errors import LightsaeError
from lightsae.extras import require


@dataclass(frozen=True)
class TextTower:
    """What embeds texts in the space that a model shares with images.

    Attributes:
        embed: Embeddings of some texts, [n, d_joint] floats, of any norm.
        projection: Takes the images' vectors to that space, [d_joint, width]; None if that is
            more than a matrix, as in SigLIP, whose last step is attention.
        norm: The LayerNorm before it.
    """

    embed: Callable[[Sequence[str]], Tensor]
    projection: Tensor | None = None
    norm: nn.LayerNorm | None = None


def load_text_tower(options: ModelOptions, device: str = "cpu") -> TextTower:
    """The text part of a model of open_clip, or of a CLIP or SigLIP of transformers.

    Args:
        options: The model by name.
        device: Where it runs.

    Raises:
        LightsaeError: If the library has no models of text, or the model or its tokenizer cannot
            be loaded.
        MissingExtraError: If the library is not installed.
    """
    if options.name is None or options.library not in ("open_clip", "transformers"):
        raise LightsaeError(
            f"model is {options.title or 'not given'}, expected a name with model.library "
            "open_clip or transformers: those have models of images and text"
        )
    model = load_whole_model(options).to(device)
    make = open_clip_tower if options.library == "open_clip" else transformers_tower
    with hub_or_cache(options):
        try:
            return make(model, _tokenizer(options, model))
        except LightsaeError:
            raise
        except Exception as error:
            raise LightsaeError(
                f"model.name {options.name}: its tokenizer cannot be loaded: {reason(error)}"
            ) from error


def _tokenizer(options: ModelOptions, model: Any) -> Any:
    """What cuts texts for a model of this name."""
    if options.library == "open_clip":
        open_clip = require("open_clip", extra="models")
        length = getattr(model, "context_length", None)
        return open_clip.get_tokenizer(options.name, context_length=length)
    return require("transformers", extra="models").AutoTokenizer.from_pretrained(options.name)


def open_clip_tower(model: Any, tokenizer: Any) -> TextTower:
    """The text part of a model of open_clip.

    Args:
        model: A `CLIP` or `CustomTextCLIP`.
        tokenizer: Makes tokens [n, T] of texts.

    Raises:
        LightsaeError: If it has no text part.
    """
    if not hasattr(model, "encode_text"):
        raise LightsaeError(f"{type(model).__name__} has no text part")

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> Tensor:
        tokens = tokenizer(list(texts))
        found: Tensor = model.encode_text(tokens.to(next(model.parameters()).device))
        return found.float().cpu()

    visual = model.visual
    projection, norm = getattr(visual, "proj", None), getattr(visual, "ln_post", None)
    if not isinstance(projection, Tensor) or not isinstance(norm, nn.LayerNorm):
        return TextTower(embed)
    return TextTower(embed, projection.detach().float().T.cpu(), norm)


def transformers_tower(model: Any, tokenizer: Any) -> TextTower:
    """The text part of a `CLIPModel` or `SiglipModel` of transformers.

    Args:
        model: The model.
        tokenizer: Its tokenizer.

    Raises:
        LightsaeError: If it has no text part.
    """
    if not hasattr(model, "get_text_features"):
        raise LightsaeError(f"{type(model).__name__} has no text part, expected CLIP or SigLIP")
    length = model.config.text_config.max_position_embeddings
    # SigLIP was trained on texts of full length, and reads its last place.
    padding = "max_length" if model.config.model_type.startswith("siglip") else True

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> Tensor:
        tokens = tokenizer(
            list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt"
        )
        names = ("input_ids",) if padding == "max_length" else ("input_ids", "attention_mask")
        given = {name: tokens[name].to(model.device) for name in names}
        found = model.get_text_features(**given)
        found = found if isinstance(found, Tensor) else found.pooler_output
        return found.float().cpu()

    projection = getattr(getattr(model, "visual_projection", None), "weight", None)
    norm = getattr(model.vision_model, "post_layernorm", None)
    if not isinstance(projection, Tensor) or not isinstance(norm, nn.LayerNorm):
        return TextTower(embed)
    return TextTower(embed, projection.detach().float().cpu(), norm)
