"""Several autoencoders side by side: matching, stability, subspaces, pooling, names."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.dictionaries.matching.cosine import Nearest, nearest_cosines
    from lightsae.dictionaries.naming.concept_vocabulary import concept_vocabulary
    from lightsae.dictionaries.naming.concepts import ConceptList, read_concepts
    from lightsae.dictionaries.naming.labels import LabelCounts, name_by_labels
    from lightsae.dictionaries.naming.latent_names import LatentNames
    from lightsae.dictionaries.naming.names import name_latents
    from lightsae.dictionaries.naming.sequence_mean import (
        distinctive_latents,
        subtract_sequence_mean,
    )
    from lightsae.dictionaries.naming.text_towers import TextTower, load_text_tower
    from lightsae.dictionaries.naming.token_vocabulary import (
        load_token_vocabulary,
        token_vocabulary,
    )
    from lightsae.dictionaries.naming.vocabulary import Vocabulary
else:
    _COSINE = ".matching.cosine"
    _CONCEPTS = ".naming.concepts"
    _LABELS = ".naming.labels"
    _SEQUENCE_MEAN = ".naming.sequence_mean"
    _TOKENS = ".naming.token_vocabulary"
    _TOWERS = ".naming.text_towers"
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ConceptList": _CONCEPTS,
            "LabelCounts": _LABELS,
            "LatentNames": ".naming.latent_names",
            "Nearest": _COSINE,
            "TextTower": _TOWERS,
            "Vocabulary": ".naming.vocabulary",
            "concept_vocabulary": ".naming.concept_vocabulary",
            "distinctive_latents": _SEQUENCE_MEAN,
            "load_text_tower": _TOWERS,
            "load_token_vocabulary": _TOKENS,
            "name_by_labels": _LABELS,
            "name_latents": ".naming.names",
            "nearest_cosines": _COSINE,
            "read_concepts": _CONCEPTS,
            "subtract_sequence_mean": _SEQUENCE_MEAN,
            "token_vocabulary": _TOKENS,
        },
    )

__all__ = [
    "ConceptList",
    "LabelCounts",
    "LatentNames",
    "Nearest",
    "TextTower",
    "Vocabulary",
    "concept_vocabulary",
    "distinctive_latents",
    "load_text_tower",
    "load_token_vocabulary",
    "name_by_labels",
    "name_latents",
    "nearest_cosines",
    "read_concepts",
    "subtract_sequence_mean",
    "token_vocabulary",
]
