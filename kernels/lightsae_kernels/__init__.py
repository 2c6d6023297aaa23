"""Fused operations of Top-k sparse autoencoders; needs torch and nothing else.

`encode_topk` and `sparse_decode` choose a backend per tensor. `reference` holds their definition.
"""

from lightsae_kernels import memory, reference
from lightsae_kernels.checks import ArgumentError
from lightsae_kernels.flags import raise_if_flagged
from lightsae_kernels.functional import encode_topk, sparse_decode
from lightsae_kernels.types import Backend, Encoded, FusedRegularizer

__all__ = [
    "ArgumentError",
    "Backend",
    "Encoded",
    "FusedRegularizer",
    "encode_topk",
    "memory",
    "raise_if_flagged",
    "reference",
    "sparse_decode",
]
