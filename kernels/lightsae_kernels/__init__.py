"""Fused operations of Top-k sparse autoencoders; needs torch and numpy.

`encode_topk`, `sparse_decode`, `sparse_residual`, `nested_residual`, `encode_residual` and
`adam_step_` choose a backend per tensor.
`reference` holds their definition, `memory` the bounds on what they allocate.
"""

from lightsae_kernels import memory, reference
from lightsae_kernels.adam import adam_step_
from lightsae_kernels.argument_checks import ArgumentError
from lightsae_kernels.decode import sparse_decode, sparse_residual
from lightsae_kernels.encode import encode_residual, encode_topk
from lightsae_kernels.fault_flags import raise_if_flagged
from lightsae_kernels.gradients import PairOrder
from lightsae_kernels.narrow_copy import NarrowCopy
from lightsae_kernels.nested import nested_residual
from lightsae_kernels.types import (
    AdamSettings,
    Backend,
    Encoded,
    EncodeOptions,
    FusedRegularizer,
    Narrow,
    NestedResidual,
    Quantized,
    Residual,
)

__all__ = [
    "AdamSettings",
    "ArgumentError",
    "Backend",
    "EncodeOptions",
    "Encoded",
    "FusedRegularizer",
    "Narrow",
    "NarrowCopy",
    "NestedResidual",
    "PairOrder",
    "Quantized",
    "Residual",
    "adam_step_",
    "encode_residual",
    "encode_topk",
    "memory",
    "nested_residual",
    "raise_if_flagged",
    "reference",
    "sparse_decode",
    "sparse_residual",
]
