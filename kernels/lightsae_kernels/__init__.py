"""Fused operations of Top-k sparse autoencoders; needs torch and nothing else.

`encode_topk` and `sparse_decode` choose a backend per tensor. `reference` holds their definition.
"""

from lightsae_kernels import reference
from lightsae_kernels.checks import ArgumentError
from lightsae_kernels.functional import encode_topk, sparse_decode
from lightsae_kernels.types import Backend, Encoded, FusedRegularizer

__all__ = [
    "ArgumentError",
    "Backend",
    "Encoded",
    "FusedRegularizer",
    "encode_topk",
    "reference",
    "sparse_decode",
]
