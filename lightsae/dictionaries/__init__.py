"""Several autoencoders side by side: matching, stability, subspaces, pooling, names."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.dictionaries.matching.cosine import Nearest, nearest_cosines
else:
    _COSINE = ".matching.cosine"
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Nearest": _COSINE,
            "nearest_cosines": _COSINE,
        },
    )

__all__ = [
    "Nearest",
    "nearest_cosines",
]
