"""Several autoencoders side by side: matching, stability, subspaces, pooling, names."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.dictionaries.matching.absorption import Absorber, Absorption, FeatureAbsorption
    from lightsae.dictionaries.matching.co_firing import CoFiring
    from lightsae.dictionaries.matching.cosine import nearest_both_ways, nearest_cosines
    from lightsae.dictionaries.matching.nearest import Nearest
    from lightsae.dictionaries.matching.one_to_one import Matching, match_one_to_one
    from lightsae.dictionaries.matching.splitting import FeatureSplitting, SplitPart, Splits
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
            "Absorber": ".matching.absorption",
            "Absorption": ".matching.absorption",
            "CoFiring": ".matching.co_firing",
            "ConceptList": ".naming.concepts",
            "Cut": ".stability.latent_stability",
            "FeatureAbsorption": ".matching.absorption",
            "FeatureSplitting": ".matching.splitting",
            "LabelCounts": ".naming.labels",
            "LatentNames": ".naming.latent_names",
            "Matching": ".matching.one_to_one",
            "Nearest": ".matching.nearest",
            "ReconstructionShares": ".stability.reconstruction_share",
            "Recovery": ".synthetic.recovery",
            "SplitPart": ".matching.splitting",
            "Splits": ".matching.splitting",
            "Stability": ".stability.latent_stability",
            "StabilityResult": ".stability.result",
            "SubspaceComparison": ".subspaces.between_seeds",
            "SyntheticFeatures": ".synthetic.features",
            "TextTower": ".naming.text_towers",
            "UniqueLatents": ".pooling.unique_latents",
            "Vocabulary": ".naming.vocabulary",
            "compare_spans": ".subspaces.between_seeds",
            "concept_vocabulary": ".naming.concept_vocabulary",
            "distinctive_latents": ".naming.sequence_mean",
            "effective_rank": ".subspaces.span",
            "latent_stability": ".stability.latent_stability",
            "load_text_tower": ".naming.text_towers",
            "load_token_vocabulary": ".naming.token_vocabulary",
            "match_one_to_one": ".matching.one_to_one",
            "measure_stability": ".stability.measure",
            "name_by_labels": ".naming.labels",
            "name_latents": ".naming.names",
            "nearest_both_ways": ".matching.cosine",
            "nearest_cosines": ".matching.cosine",
            "participation_ratio": ".subspaces.span",
            "pool": ".pooling.pool",
            "principal_angles": ".subspaces.overlap",
            "random_overlap": ".subspaces.overlap",
            "random_stability": ".stability.baselines",
            "read_concepts": ".naming.concepts",
            "reconstruction_shares": ".stability.reconstruction_share",
            "recovery": ".synthetic.recovery",
            "span": ".subspaces.span",
            "stability_curve": ".stability.comparison",
            "subspace_overlap": ".subspaces.overlap",
            "subtract_sequence_mean": ".naming.sequence_mean",
            "synthetic_features": ".synthetic.features",
            "token_vocabulary": ".naming.token_vocabulary",
            "unique_latents": ".pooling.unique_latents",
        },
    )

__all__ = [
    "Absorber",
    "Absorption",
    "CoFiring",
    "ConceptList",
    "Cut",
    "FeatureAbsorption",
    "FeatureSplitting",
    "LabelCounts",
    "LatentNames",
    "Matching",
    "Nearest",
    "ReconstructionShares",
    "Recovery",
    "SplitPart",
    "Splits",
    "Stability",
    "StabilityResult",
    "SubspaceComparison",
    "SyntheticFeatures",
    "TextTower",
    "UniqueLatents",
    "Vocabulary",
    "compare_spans",
    "concept_vocabulary",
    "distinctive_latents",
    "effective_rank",
    "latent_stability",
    "load_text_tower",
    "load_token_vocabulary",
    "match_one_to_one",
    "measure_stability",
    "name_by_labels",
    "name_latents",
    "nearest_both_ways",
    "nearest_cosines",
    "participation_ratio",
    "pool",
    "principal_angles",
    "random_overlap",
    "random_stability",
    "read_concepts",
    "reconstruction_shares",
    "recovery",
    "span",
    "stability_curve",
    "subspace_overlap",
    "subtract_sequence_mean",
    "synthetic_features",
    "token_vocabulary",
    "unique_latents",
]
