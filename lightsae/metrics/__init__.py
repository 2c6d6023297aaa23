"""Metrics of sparse autoencoders, as torchmetrics classes and as functions."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.metrics.comparison.intervals import Interval, t_interval
    from lightsae.metrics.comparison.latent_scores import (
        LatentDifferences,
        RankDifferences,
        latent_differences,
        rank_differences,
    )
    from lightsae.metrics.images.pooling import ImageCodes, PooledCodes, Pooling, pool_by_sample
    from lightsae.metrics.images.top_activating import TopActivating, TopActivations, top_activating
    from lightsae.metrics.interpretability.class_purity import (
        ClassPurity,
        PurityScores,
        class_purity,
    )
    from lightsae.metrics.interpretability.frequency import (
        FrequencyCorrelation,
        frequency_correlation,
    )
    from lightsae.metrics.interpretability.monosemanticity import Monosemanticity, monosemanticity
    from lightsae.metrics.interpretability.monosemanticity_scores import MonosemanticityScores
    from lightsae.metrics.interpretability.morans_i import MoransI, MoransIScores, morans_i
    from lightsae.metrics.interpretability.own_input import (
        OwnInputMonosemanticity,
        own_input_monosemanticity,
    )
    from lightsae.metrics.probing.k_sparse_probe import (
        KSparseProbe,
        KSparseProbeCurve,
        k_sparse_probe,
    )
    from lightsae.metrics.probing.labelled_codes import LabelledCodes
    from lightsae.metrics.probing.labelled_rows import LabelledRows
    from lightsae.metrics.probing.truncated_probe import (
        TruncatedProbe,
        TruncatedProbeCurve,
        truncated_probe,
    )
    from lightsae.metrics.reconstruction.downstream_loss import (
        DownstreamLoss,
        DownstreamLosses,
        downstream_loss,
    )
    from lightsae.metrics.reconstruction.k_robustness import (
        KRobustness,
        KRobustnessCurve,
        k_around,
        k_robustness,
    )
    from lightsae.metrics.reconstruction.nmse import NMSE, nmse
    from lightsae.metrics.reconstruction.r2 import R2, r2
    from lightsae.metrics.reconstruction.r2_uniform import R2Uniform, r2_uniform
    from lightsae.metrics.redundancy.decoder_coherence import (
        Coherence,
        DecoderCoherence,
        decoder_coherence,
    )
    from lightsae.metrics.redundancy.uniqueness import Uniqueness, UniquenessScores, uniqueness
    from lightsae.metrics.sparsity.dead import DeadLatents, dead_latents
    from lightsae.metrics.sparsity.firing_density import (
        FiringDensities,
        FiringDensity,
        firing_density,
    )
    from lightsae.metrics.sparsity.hoyer import Hoyer, hoyer
    from lightsae.metrics.sparsity.l0 import L0, l0
    from lightsae.metrics.sparsity.rank_profile import RankProfile, RankProfileCurve, rank_profile
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "ClassPurity": ".interpretability.class_purity",
            "Coherence": ".redundancy.decoder_coherence",
            "DeadLatents": ".sparsity.dead",
            "DecoderCoherence": ".redundancy.decoder_coherence",
            "DownstreamLoss": ".reconstruction.downstream_loss",
            "DownstreamLosses": ".reconstruction.downstream_loss",
            "FiringDensities": ".sparsity.firing_density",
            "FiringDensity": ".sparsity.firing_density",
            "FrequencyCorrelation": ".interpretability.frequency",
            "Hoyer": ".sparsity.hoyer",
            "ImageCodes": ".images.pooling",
            "Interval": ".comparison.intervals",
            "KRobustness": ".reconstruction.k_robustness",
            "KRobustnessCurve": ".reconstruction.k_robustness",
            "KSparseProbe": ".probing.k_sparse_probe",
            "KSparseProbeCurve": ".probing.k_sparse_probe",
            "L0": ".sparsity.l0",
            "LabelledCodes": ".probing.labelled_codes",
            "LabelledRows": ".probing.labelled_rows",
            "LatentDifferences": ".comparison.latent_scores",
            "Monosemanticity": ".interpretability.monosemanticity",
            "MonosemanticityScores": ".interpretability.monosemanticity_scores",
            "MoransI": ".interpretability.morans_i",
            "MoransIScores": ".interpretability.morans_i",
            "NMSE": ".reconstruction.nmse",
            "OwnInputMonosemanticity": ".interpretability.own_input",
            "PooledCodes": ".images.pooling",
            "Pooling": ".images.pooling",
            "PurityScores": ".interpretability.class_purity",
            "R2": ".reconstruction.r2",
            "R2Uniform": ".reconstruction.r2_uniform",
            "RankDifferences": ".comparison.latent_scores",
            "RankProfile": ".sparsity.rank_profile",
            "RankProfileCurve": ".sparsity.rank_profile",
            "TopActivating": ".images.top_activating",
            "TopActivations": ".images.top_activating",
            "TruncatedProbe": ".probing.truncated_probe",
            "TruncatedProbeCurve": ".probing.truncated_probe",
            "Uniqueness": ".redundancy.uniqueness",
            "UniquenessScores": ".redundancy.uniqueness",
            "class_purity": ".interpretability.class_purity",
            "dead_latents": ".sparsity.dead",
            "decoder_coherence": ".redundancy.decoder_coherence",
            "downstream_loss": ".reconstruction.downstream_loss",
            "firing_density": ".sparsity.firing_density",
            "frequency_correlation": ".interpretability.frequency",
            "hoyer": ".sparsity.hoyer",
            "k_around": ".reconstruction.k_robustness",
            "k_robustness": ".reconstruction.k_robustness",
            "k_sparse_probe": ".probing.k_sparse_probe",
            "l0": ".sparsity.l0",
            "latent_differences": ".comparison.latent_scores",
            "monosemanticity": ".interpretability.monosemanticity",
            "morans_i": ".interpretability.morans_i",
            "nmse": ".reconstruction.nmse",
            "own_input_monosemanticity": ".interpretability.own_input",
            "pool_by_sample": ".images.pooling",
            "r2": ".reconstruction.r2",
            "r2_uniform": ".reconstruction.r2_uniform",
            "rank_differences": ".comparison.latent_scores",
            "rank_profile": ".sparsity.rank_profile",
            "t_interval": ".comparison.intervals",
            "top_activating": ".images.top_activating",
            "truncated_probe": ".probing.truncated_probe",
            "uniqueness": ".redundancy.uniqueness",
        },
    )

__all__ = [
    "L0",
    "NMSE",
    "R2",
    "ClassPurity",
    "Coherence",
    "DeadLatents",
    "DecoderCoherence",
    "DownstreamLoss",
    "DownstreamLosses",
    "FiringDensities",
    "FiringDensity",
    "FrequencyCorrelation",
    "Hoyer",
    "ImageCodes",
    "Interval",
    "KRobustness",
    "KRobustnessCurve",
    "KSparseProbe",
    "KSparseProbeCurve",
    "LabelledCodes",
    "LabelledRows",
    "LatentDifferences",
    "Monosemanticity",
    "MonosemanticityScores",
    "MoransI",
    "MoransIScores",
    "OwnInputMonosemanticity",
    "PooledCodes",
    "Pooling",
    "PurityScores",
    "R2Uniform",
    "RankDifferences",
    "RankProfile",
    "RankProfileCurve",
    "TopActivating",
    "TopActivations",
    "TruncatedProbe",
    "TruncatedProbeCurve",
    "Uniqueness",
    "UniquenessScores",
    "class_purity",
    "dead_latents",
    "decoder_coherence",
    "downstream_loss",
    "firing_density",
    "frequency_correlation",
    "hoyer",
    "k_around",
    "k_robustness",
    "k_sparse_probe",
    "l0",
    "latent_differences",
    "monosemanticity",
    "morans_i",
    "nmse",
    "own_input_monosemanticity",
    "pool_by_sample",
    "r2",
    "r2_uniform",
    "rank_differences",
    "rank_profile",
    "t_interval",
    "top_activating",
    "truncated_probe",
    "uniqueness",
]
