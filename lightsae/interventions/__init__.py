"""Acting on a model through its autoencoders: hooks, edits, finding latents, steering."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.interventions.class_effects.measure import measure_class_effects
    from lightsae.interventions.class_effects.result import ClassEffects
    from lightsae.interventions.finding.ablation_effects import ablation_effects
    from lightsae.interventions.finding.attribution import attribution
    from lightsae.interventions.finding.collect_features import collect_features
    from lightsae.interventions.finding.contrast import Contrast, contrast
    from lightsae.interventions.finding.latent_ranking import (
        LatentRanking,
        ranking_of_contrast,
        ranking_of_probe,
    )
    from lightsae.interventions.finding.layer_features import LayerFeatures
    from lightsae.interventions.finding.layer_probes import LayerProbes, probe_layers
    from lightsae.interventions.finding.probe import Probe, fit_probe
    from lightsae.interventions.hooks.attach import Attached, EditHandle, Recording, attach
    from lightsae.interventions.hooks.edits import (
        Add,
        Clamp,
        Edit,
        MeanAblate,
        Scale,
        Swap,
        ZeroAblate,
    )
    from lightsae.interventions.hooks.layer_code import LayerCode
    from lightsae.interventions.task_vectors.experiment import task_vector_experiment
    from lightsae.interventions.task_vectors.projection import energy_kept
    from lightsae.interventions.task_vectors.proportions import two_proportion_z
    from lightsae.interventions.task_vectors.result import TaskVectorResult
    from lightsae.interventions.task_vectors.specificity import layer_specificity
    from lightsae.interventions.task_vectors.task_vector import TaskVector
else:
    _ATTACH, _EDITS = ".hooks.attach", ".hooks.edits"
    _RANKING = ".finding.latent_ranking"
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Add": _EDITS,
            "Attached": _ATTACH,
            "Clamp": _EDITS,
            "ClassEffects": ".class_effects.result",
            "Contrast": ".finding.contrast",
            "Edit": _EDITS,
            "EditHandle": _ATTACH,
            "LatentRanking": _RANKING,
            "LayerCode": ".hooks.layer_code",
            "LayerFeatures": ".finding.layer_features",
            "LayerProbes": ".finding.layer_probes",
            "MeanAblate": _EDITS,
            "Probe": ".finding.probe",
            "Recording": _ATTACH,
            "Scale": _EDITS,
            "Swap": _EDITS,
            "TaskVector": ".task_vectors.task_vector",
            "TaskVectorResult": ".task_vectors.result",
            "ZeroAblate": _EDITS,
            "ablation_effects": ".finding.ablation_effects",
            "attach": _ATTACH,
            "attribution": ".finding.attribution",
            "collect_features": ".finding.collect_features",
            "contrast": ".finding.contrast",
            "energy_kept": ".task_vectors.projection",
            "fit_probe": ".finding.probe",
            "layer_specificity": ".task_vectors.specificity",
            "measure_class_effects": ".class_effects.measure",
            "probe_layers": ".finding.layer_probes",
            "ranking_of_contrast": _RANKING,
            "ranking_of_probe": _RANKING,
            "task_vector_experiment": ".task_vectors.experiment",
            "two_proportion_z": ".task_vectors.proportions",
        },
    )

__all__ = [
    "Add",
    "Attached",
    "Clamp",
    "ClassEffects",
    "Contrast",
    "Edit",
    "EditHandle",
    "LatentRanking",
    "LayerCode",
    "LayerFeatures",
    "LayerProbes",
    "MeanAblate",
    "Probe",
    "Recording",
    "Scale",
    "Swap",
    "TaskVector",
    "TaskVectorResult",
    "ZeroAblate",
    "ablation_effects",
    "attach",
    "attribution",
    "collect_features",
    "contrast",
    "energy_kept",
    "fit_probe",
    "layer_specificity",
    "measure_class_effects",
    "probe_layers",
    "ranking_of_contrast",
    "ranking_of_probe",
    "task_vector_experiment",
    "two_proportion_z",
]
