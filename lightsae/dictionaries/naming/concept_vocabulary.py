"""A vocabulary of concepts: text embeddings in the space of an autoencoder's rows."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightsae.dictionaries.naming.text_towers import TextTower
from lightsae.dictionaries.naming.vocabulary import Vocabulary
from lightsae.errors import LightsaeError

Space = Literal["joint", "projection_input", "norm_input"]
TEMPLATES = ("a photo of a {}.",)


def concept_vocabulary(
    concepts: Sequence[str],
    tower: TextTower,
    templates: Sequence[str] = TEMPLATES,
    *,
    space: Space = "joint",
    subtract_mean: bool = False,
    batch_size: int = 256,
) -> Vocabulary:
    """Directions of concepts as a model of images and text embeds their names.

    Of each concept the mean over templates of unit embeddings, made a unit vector again: what CLIP
    classifies by without examples (Radford et al., arXiv 2103.00020, section 3.1.4). Where the
    autoencoder sits before the projection into the joint space, see `pulled_back`.

    Args:
        concepts: Different names [V].
        tower: Embeds texts.
        templates: Sentences with one {} for the name.
        space: Of the autoencoder's rows: the joint one, what the projection takes (behind the last
            LayerNorm), or what that LayerNorm takes (a block's output).
        subtract_mean: Less the mean of all concepts (ours): text embeddings of a model share a
            direction, which else is in every cosine. Before they are pulled back.
        batch_size: Texts at once.

    Raises:
        LightsaeError: If a template has not one {}, the model has no projection to pull back by,
            or embeds all concepts alike.

    Example:
        >>> def embed(texts):
        ...     return torch.tensor([[float("cat" in text), 1.0] for text in texts])
        >>> concept_vocabulary(["cat", "dog"], TextTower(embed)).vectors
        tensor([[0.7071, 0.7071],
                [0.0000, 1.0000]])
    """
    _require_templates(templates)
    if batch_size < 1:
        raise LightsaeError(f"batch_size is {batch_size}, expected 1 or more")
    total = sum(
        _embedded([_filled(template, name) for name in concepts], tower, batch_size)
        for template in templates
    )
    assert isinstance(total, Tensor)
    vectors = nn.functional.normalize(total, dim=1)
    if len(vectors) > 1 and torch.allclose(vectors, vectors[:1]):
        raise LightsaeError("the model embeds all concepts alike: are its tokenizer's files there?")
    if subtract_mean:
        vectors = vectors - vectors.mean(dim=0)
    about = {"templates": list(templates), "space": space, "subtract_mean": subtract_mean}
    return Vocabulary(list(concepts), _in_space(vectors, tower, space), about)


def pulled_back(vectors: Tensor, projection: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
    """Directions of the joint space as directions of the layer that is projected into it.

    Ours: `P^T e`, the transpose. It is the direction in which the layer's vector must move for its
    dot product with e to grow most, since `<P d, e> = <d, P^T e>`: a latent's cosine with it tells
    how much of its decoder row serves that concept. What the projection drops counts against the
    latent, which it would not if rows were pushed forward; and small singular values of P are not
    blown up, as by its pseudo-inverse (of a P with orthonormal rows both are the same). Text
    vectors are brought to the rows and not the other way round so that one file serves the names
    and the anchor of the loss.

    A LayerNorm before the projection is `gamma * (x - mean(x)) / sd(x) + beta`: its part that is
    linear in a direction is pulled back too, as `(I - 11^T / d) (gamma * P^T e)`; the standard
    deviation differs from row to row but is a factor of all directions.

    Args:
        vectors: Directions of the joint space [V, d_joint].
        projection: P [d_joint, d].
        norm: The LayerNorm.

    Returns:
        Directions [V, d], in the dtype of the vectors.

    Raises:
        LightsaeError: If sizes disagree.

    Example:
        >>> P = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
        >>> pulled_back(torch.tensor([[1.0, 0.0]]), P)
        tensor([[2., 0., 1.]])
    """
    if projection.ndim != 2 or vectors.ndim != 2 or vectors.shape[1] != len(projection):
        raise LightsaeError(
            f"vectors are {list(vectors.shape)} and the projection {list(projection.shape)}, "
            "expected [V, d_joint] and [d_joint, d]"
        )
    found = vectors @ projection.to(vectors)
    if norm is None:
        return found
    if list(norm.normalized_shape) != [projection.shape[1]]:
        raise LightsaeError(
            f"the LayerNorm is of {list(norm.normalized_shape)}, the projection takes "
            f"{projection.shape[1]}"
        )
    if norm.elementwise_affine:
        found = found * norm.weight.detach().to(found)
    return found - found.mean(dim=1, keepdim=True)


def _in_space(vectors: Tensor, tower: TextTower, space: Space) -> Tensor:
    """Vectors of the joint space in that of the autoencoder's rows."""
    if space == "joint":
        return vectors
    if space not in ("projection_input", "norm_input"):
        raise LightsaeError(f"space is {space!r}, expected joint, projection_input or norm_input")
    if tower.projection is None:
        raise LightsaeError(
            f"space is {space}, but the model's last step into the joint space is no projection "
            "behind a LayerNorm: only its joint space has directions of text"
        )
    return pulled_back(vectors, tower.projection, tower.norm if space == "norm_input" else None)


def _embedded(texts: list[str], tower: TextTower, batch_size: int) -> Tensor:
    """Unit embeddings of all texts."""
    parts = [
        tower.embed(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)
    ]
    return nn.functional.normalize(torch.cat(parts).float(), dim=1)


def _filled(template: str, name: str) -> str:
    # Not str.format: names and templates may have braces of their own.
    return template.replace("{}", name)


def _require_templates(templates: Sequence[str]) -> None:
    if isinstance(templates, str) or not templates:
        raise LightsaeError(f"templates is {templates!r}, expected a list of one or more")
    for template in templates:
        if template.count("{}") != 1:
            raise LightsaeError(f"templates: {template!r} has not one {{}} for the name")
