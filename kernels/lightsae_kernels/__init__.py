"""Fused operations of Top-k sparse autoencoders; needs torch and nothing else.

`encode_topk`, `sparse_decode` and `sparse_residual` choose a backend per tensor. `reference` holds
their definition, `memory` the bounds on what they allocate.
"""

from lightsae_kernels import memory, reference
from lightsae_kernels.checks import ArgumentError
from lightsae_kernels.flags import raise_if_flagged
from lightsae_kernels.functional import encode_topk, sparse_decode, sparse_residual
from lightsae_kernels.types import Backend, Encoded, FusedRegularizer, Residual

__all__ = [
    "ArgumentError",
    "Backend",
    "Encoded",
    "FusedRegularizer",
    "Residual",
    "encode_topk",
    "memory",
    "raise_if_flagged",
    "reference",
    "sparse_decode",
    "sparse_residual",
]
