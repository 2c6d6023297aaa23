"""The options of an evaluation: `--evaluation.embeddings`, `--evaluation.probes`, ..."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from lightsae.activations.extraction.images.preparation import DataOptions
from lightsae.activations.extraction.models.options import Library, ModelOptions
from lightsae.activations.extraction.option_types import TokenKind
from lightsae.errors import LightsaeError
from lightsae.files import NameOption, expanded
from lightsae.metrics import Pooling

OWN_INPUT = "own_input"
_LEAST = {"rank_rows": 1, "top_images": 1, "probe_rows": 2}


@dataclass
class EmbeddingOptions:
    """What monosemanticity is measured in: a folder of shards, or a model.

    Attributes:
        name: What every output calls it; by default the last part of the folder, or the model's
            name.
        shards: Folder of shards of another model; rows are matched by sample, whatever their
            order, and several rows of a sample are averaged.
        model: A model that is run over the images that the autoencoder's shards came from.
        layer: Module of the model whose output is taken; by default the model's own embedding.
        tokens: Which tokens of that layer: class, patch, pooled or all.

    Raises:
        LightsaeError: If it is not one of both, or a name cannot be.

    Example:
        >>> EmbeddingOptions(shards="shards/resnet32").title
        'resnet32'
    """

    name: str | None = None
    shards: NameOption | None = None
    model: ModelOptions | None = None
    layer: str | None = None
    tokens: TokenKind = "class"

    def __post_init__(self) -> None:
        if (self.shards is None) == (self.model is None):
            raise LightsaeError("evaluation.embeddings: give either shards or model")
        if self.layer is not None and self.model is None:
            raise LightsaeError(
                f"evaluation.embeddings: layer is {self.layer!r}, but shards have only the one "
                "they were made of"
            )
        if self.shards is not None:
            self.shards = expanded(self.shards)
        _require_name(self.title)

    @property
    def title(self) -> str:
        """The name, or what takes its place."""
        if self.name is not None:
            return self.name
        if self.model is None:
            return Path(str(self.shards)).resolve().name
        return self.model.title.rpartition("/")[2]


@dataclass
class EvaluationOptions:
    """How an autoencoder is evaluated.

    Attributes:
        embeddings: What monosemanticity is measured in, several at once: a folder of shards of
            another model; LIBRARY:NAME, a model of timm, open_clip, transformers or torchvision;
            own_input, the autoencoder's own input, which flatters it; or `shards` or `model` with a
            `name` of their own.
        images: The images of the shards, for models among the embeddings; by default those that the
            shards were extracted from.
        probes: Fit linear probes to the codes of labelled training images.
        probe_rows: Training images that the probes are fitted to at most.
        pooling: How an image's tokens become one activation: max or mean.
        rank_rows: Rows that the rank profile and the k-robustness curve are of at most.
        top_images: How many of the strongest images of each latent are kept.

    Raises:
        LightsaeError: If a number is too small, or two embeddings have one name.

    Example:
        >>> EvaluationOptions(embeddings=["timm:resnet18"]).chosen()[0].title
        'resnet18'
    """

    embeddings: list[EmbeddingOptions | str] = field(default_factory=lambda: [OWN_INPUT])
    images: DataOptions | None = None
    probes: bool = True
    probe_rows: int = 20_000
    pooling: Pooling = "max"
    rank_rows: int = 2048
    top_images: int = 16

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise LightsaeError(
                    f"evaluation.{name} is {getattr(self, name)}, expected at least {least}"
                )
        if self.pooling not in get_args(Pooling):
            raise LightsaeError(
                f"evaluation.pooling is {self.pooling!r}, expected one of "
                f"{', '.join(get_args(Pooling))}"
            )

    def chosen(self) -> "list[EmbeddingOptions | None]":
        """The embeddings, None in the place of the own input.

        Raises:
            LightsaeError: If one cannot be, or two have one name.
        """
        found = [embedding_options(given) for given in self.embeddings]
        require_own_names([OWN_INPUT if each is None else each.title for each in found])
        return found


def embedding_options(given: EmbeddingOptions | str | Path) -> EmbeddingOptions | None:
    """What a text means: own_input, LIBRARY:NAME or a folder of shards.

    Args:
        given: Text or options.

    Returns:
        The options; None for the own input.

    Raises:
        LightsaeError: If a folder's name cannot be that of embeddings.

    Example:
        >>> embedding_options("open_clip:ViT-B-32").model.library
        'open_clip'
        >>> embedding_options("own_input") is None
        True
    """
    if isinstance(given, EmbeddingOptions):
        return given
    text = str(given)
    if text == OWN_INPUT:
        return None
    library, colon, name = text.partition(":")
    for known in get_args(Library):
        if colon and library == known:
            return EmbeddingOptions(model=ModelOptions(name=name, library=known))
    return EmbeddingOptions(shards=text)


def require_own_names(names: Sequence[str]) -> None:
    """Refuse embeddings of one name: outputs could not tell them apart.

    Example:
        >>> require_own_names(["cnn", "cnn"])
        Traceback (most recent call last):
        ...
        lightsae.errors.LightsaeError: evaluation.embeddings: two are named 'cnn': give one of \
them another name
    """
    for name in names:
        _require_name(name)
        if names.count(name) > 1:
            raise LightsaeError(
                f"evaluation.embeddings: two are named {name!r}: give one of them another name"
            )


def _require_name(name: str) -> None:
    """Names stand in keys behind a slash, and in those of folders."""
    if not name or "/" in name or name in (".", "..") or not name.isprintable():
        raise LightsaeError(
            f"evaluation.embeddings: {name!r} is no name: expected printable characters and no /"
        )
