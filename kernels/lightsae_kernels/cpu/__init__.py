"""The same operations for CPU tensors: row blocks that stay in cache, sparse gradients."""

from lightsae_kernels.cpu.adam import adam_step_
from lightsae_kernels.cpu.decode import sparse_decode, sparse_residual
from lightsae_kernels.cpu.encode import encode_topk
from lightsae_kernels.cpu.residual import encode_residual

__all__ = ["adam_step_", "encode_residual", "encode_topk", "sparse_decode", "sparse_residual"]
