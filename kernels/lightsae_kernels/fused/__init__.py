"""Fused Triton kernels behind the public operations; CUDA tensors, or the interpreter."""

import os

# Triton 3.9 warns while this is unset, and 3.10 changes its default, and with it the last bits.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

from lightsae_kernels.fixed_backend import operations_of
from lightsae_kernels.fused.adam import adam_step_
from lightsae_kernels.fused.decode import decode_forward, residual_forward, values_gradient
from lightsae_kernels.fused.encode import centre, encode_forward, keeps
from lightsae_kernels.fused.encode_gradient import encode_backward
from lightsae_kernels.fused.latent_sort import (
    ORDER_DTYPE,
    LatentOrder,
    latent_order,
    order_sizes,
)
from lightsae_kernels.fused.weight_gradients import decoder_gradient

__getattr__ = operations_of(__name__, "triton")

__all__ = [
    "ORDER_DTYPE",
    "LatentOrder",
    "adam_step_",
    "centre",
    "decode_forward",
    "decoder_gradient",
    "encode_backward",
    "encode_forward",
    "keeps",
    "latent_order",
    "order_sizes",
    "residual_forward",
    "values_gradient",
]
