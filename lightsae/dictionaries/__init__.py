"""Several autoencoders side by side: matching, stability, subspaces, pooling, names."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.dictionaries.matching.cosine import Nearest, nearest_cosines
    from lightsae.dictionaries.naming.concepts import ConceptList, read_concepts
    from lightsae.dictionaries.naming.latent_names import LatentNames
    from lightsae.dictionaries.naming.names import name_latents
    from lightsae.dictionaries.naming.vocabulary import Vocabulary
else:
    _COSINE = ".matching.cosine"
    _CONCEPTS = ".naming.concepts"
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ConceptList": _CONCEPTS,
            "LatentNames": ".naming.latent_names",
            "Nearest": _COSINE,
            "Vocabulary": ".naming.vocabulary",
            "name_latents": ".naming.names",
            "nearest_cosines": _COSINE,
            "read_concepts": _CONCEPTS,
        },
    )

__all__ = [
    "ConceptList",
    "LatentNames",
    "Nearest",
    "Vocabulary",
    "name_latents",
    "nearest_cosines",
    "read_concepts",
]
