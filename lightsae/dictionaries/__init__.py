"""Several autoencoders side by side: matching, stability, subspaces, pooling, names."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.dictionaries.matching.absorption import Absorber, Absorption, FeatureAbsorption
    from lightsae.dictionaries.matching.co_firing import CoFiring
    from lightsae.dictionaries.matching.cosine import (
        Nearest,
        nearest_both_ways,
        nearest_cosines,
    )
    from lightsae.dictionaries.matching.one_to_one import Matching, match_one_to_one
    from lightsae.dictionaries.matching.splitting import FeatureSplitting, SplitPart, Splits
else:
    _COSINE = ".matching.cosine"
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Absorber": ".matching.absorption",
            "Absorption": ".matching.absorption",
            "CoFiring": ".matching.co_firing",
            "FeatureAbsorption": ".matching.absorption",
            "FeatureSplitting": ".matching.splitting",
            "Matching": ".matching.one_to_one",
            "Nearest": _COSINE,
            "SplitPart": ".matching.splitting",
            "Splits": ".matching.splitting",
            "match_one_to_one": ".matching.one_to_one",
            "nearest_both_ways": _COSINE,
            "nearest_cosines": _COSINE,
        },
    )

__all__ = [
    "Absorber",
    "Absorption",
    "CoFiring",
    "FeatureAbsorption",
    "FeatureSplitting",
    "Matching",
    "Nearest",
    "SplitPart",
    "Splits",
    "match_one_to_one",
    "nearest_both_ways",
    "nearest_cosines",
]
