"""Several autoencoders side by side: matching, stability, subspaces, pooling, names."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.dictionaries.matching.cosine import (
        Nearest,
        nearest_both_ways,
        nearest_cosines,
    )
    from lightsae.dictionaries.matching.one_to_one import Matching, match_one_to_one
else:
    _COSINE = ".matching.cosine"
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Matching": ".matching.one_to_one",
            "Nearest": _COSINE,
            "match_one_to_one": ".matching.one_to_one",
            "nearest_both_ways": _COSINE,
            "nearest_cosines": _COSINE,
        },
    )

__all__ = [
    "Matching",
    "Nearest",
    "match_one_to_one",
    "nearest_both_ways",
    "nearest_cosines",
]
