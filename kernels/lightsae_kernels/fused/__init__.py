"""Fused Triton kernels behind the public operations; CUDA tensors, or the interpreter."""

import os

# Triton 3.9 warns while this is unset, and 3.10 changes its default, and with it the last bits.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

from lightsae_kernels.fused.adam import adam_step_
from lightsae_kernels.fused.functional import encode_topk, sparse_decode
from lightsae_kernels.fused.residual import encode_residual, sparse_residual

__all__ = ["adam_step_", "encode_residual", "encode_topk", "sparse_decode", "sparse_residual"]
