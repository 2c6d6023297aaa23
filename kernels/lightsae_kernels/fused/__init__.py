"""Fused Triton kernels behind the public operations; CUDA tensors, or the interpreter."""

from lightsae_kernels.fused.functional import encode_topk, sparse_decode, sparse_residual

__all__ = ["encode_topk", "sparse_decode", "sparse_residual"]
