"""Metrics of sparse autoencoders, as torchmetrics classes and as functions."""

from lightsae.metrics.dead import DeadLatents, dead_latents
from lightsae.metrics.l0 import L0, l0
from lightsae.metrics.monosemanticity import (
    Monosemanticity,
    MonosemanticityScores,
    monosemanticity,
)
from lightsae.metrics.pooling import ImageCodes, PooledCodes, Pooling, pool_by_sample
from lightsae.metrics.r2 import R2, r2
from lightsae.metrics.top_activating import TopActivating, TopActivations, top_activating

__all__ = [
    "L0",
    "R2",
    "DeadLatents",
    "ImageCodes",
    "Monosemanticity",
    "MonosemanticityScores",
    "PooledCodes",
    "Pooling",
    "TopActivating",
    "TopActivations",
    "dead_latents",
    "l0",
    "monosemanticity",
    "pool_by_sample",
    "r2",
    "top_activating",
]
