"""How the loss of Top-k autoencoders scales with latents, k, tokens and operations."""

from typing import TYPE_CHECKING

from lightsae.lazy_imports import lazy_names

if TYPE_CHECKING:
    from lightsae.planning.scaling.flops import affordable_latents, flops_per_token
    from lightsae.planning.scaling.law_types import (
        AtK,
        Budget,
        Curve,
        Estimate,
        HeldOut,
        KLaw,
        Law,
    )
    from lightsae.planning.scaling.result import ScalingResult
    from lightsae.planning.scaling.runs import LeftOut, Run
    from lightsae.planning.scaling.scaling_laws import fit_scaling
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "AtK": ".law_types",
            "Budget": ".law_types",
            "Curve": ".law_types",
            "Estimate": ".law_types",
            "HeldOut": ".law_types",
            "KLaw": ".law_types",
            "Law": ".law_types",
            "LeftOut": ".runs",
            "Run": ".runs",
            "ScalingResult": ".result",
            "affordable_latents": ".flops",
            "fit_scaling": ".scaling_laws",
            "flops_per_token": ".flops",
        },
    )

__all__ = [
    "AtK",
    "Budget",
    "Curve",
    "Estimate",
    "HeldOut",
    "KLaw",
    "Law",
    "LeftOut",
    "Run",
    "ScalingResult",
    "affordable_latents",
    "fit_scaling",
    "flops_per_token",
]
