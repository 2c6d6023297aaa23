"""Several autoencoders side by side: matching, stability, subspaces, pooling, names."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.dictionaries.matching.cosine import Nearest, nearest_cosines
    from lightsae.dictionaries.pooling.pool import pool
    from lightsae.dictionaries.pooling.unique_latents import UniqueLatents, unique_latents
else:
    _COSINE = ".matching.cosine"
    _UNIQUE = ".pooling.unique_latents"
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Nearest": _COSINE,
            "UniqueLatents": _UNIQUE,
            "nearest_cosines": _COSINE,
            "pool": ".pooling.pool",
            "unique_latents": _UNIQUE,
        },
    )

__all__ = [
    "Nearest",
    "UniqueLatents",
    "nearest_cosines",
    "pool",
    "unique_latents",
]
