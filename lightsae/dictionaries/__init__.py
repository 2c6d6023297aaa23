"""Several autoencoders side by side: matching, stability, subspaces, pooling, names."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.dictionaries.matching.co_firing import CoFiring
    from lightsae.dictionaries.matching.cosine import Nearest, nearest_both_ways, nearest_cosines
    from lightsae.dictionaries.matching.one_to_one import Matching, match_one_to_one
    from lightsae.dictionaries.pooling.pool import pool
    from lightsae.dictionaries.pooling.unique_latents import UniqueLatents, unique_latents
    from lightsae.dictionaries.stability.baselines import random_stability
    from lightsae.dictionaries.stability.comparison import stability_curve
    from lightsae.dictionaries.stability.latent_stability import Cut, Stability, latent_stability
    from lightsae.dictionaries.stability.measure import measure_stability
    from lightsae.dictionaries.stability.reconstruction_share import (
        ReconstructionShares,
        reconstruction_shares,
    )
    from lightsae.dictionaries.stability.result import StabilityResult
    from lightsae.dictionaries.subspaces.between_seeds import SubspaceComparison, compare_spans
    from lightsae.dictionaries.subspaces.overlap import (
        principal_angles,
        random_overlap,
        subspace_overlap,
    )
    from lightsae.dictionaries.subspaces.span import effective_rank, participation_ratio, span
    from lightsae.dictionaries.synthetic.features import SyntheticFeatures, synthetic_features
    from lightsae.dictionaries.synthetic.recovery import Recovery, recovery
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "CoFiring": ".matching.co_firing",
            "Cut": ".stability.latent_stability",
            "Matching": ".matching.one_to_one",
            "Nearest": ".matching.cosine",
            "ReconstructionShares": ".stability.reconstruction_share",
            "Recovery": ".synthetic.recovery",
            "Stability": ".stability.latent_stability",
            "StabilityResult": ".stability.result",
            "SubspaceComparison": ".subspaces.between_seeds",
            "SyntheticFeatures": ".synthetic.features",
            "UniqueLatents": ".pooling.unique_latents",
            "compare_spans": ".subspaces.between_seeds",
            "effective_rank": ".subspaces.span",
            "latent_stability": ".stability.latent_stability",
            "match_one_to_one": ".matching.one_to_one",
            "measure_stability": ".stability.measure",
            "nearest_both_ways": ".matching.cosine",
            "nearest_cosines": ".matching.cosine",
            "participation_ratio": ".subspaces.span",
            "pool": ".pooling.pool",
            "principal_angles": ".subspaces.overlap",
            "random_overlap": ".subspaces.overlap",
            "random_stability": ".stability.baselines",
            "reconstruction_shares": ".stability.reconstruction_share",
            "recovery": ".synthetic.recovery",
            "span": ".subspaces.span",
            "stability_curve": ".stability.comparison",
            "subspace_overlap": ".subspaces.overlap",
            "synthetic_features": ".synthetic.features",
            "unique_latents": ".pooling.unique_latents",
        },
    )

__all__ = [
    "CoFiring",
    "Cut",
    "Matching",
    "Nearest",
    "ReconstructionShares",
    "Recovery",
    "Stability",
    "StabilityResult",
    "SubspaceComparison",
    "SyntheticFeatures",
    "UniqueLatents",
    "compare_spans",
    "effective_rank",
    "latent_stability",
    "match_one_to_one",
    "measure_stability",
    "nearest_both_ways",
    "nearest_cosines",
    "participation_ratio",
    "pool",
    "principal_angles",
    "random_overlap",
    "random_stability",
    "reconstruction_shares",
    "recovery",
    "span",
    "stability_curve",
    "subspace_overlap",
    "synthetic_features",
    "unique_latents",
]
