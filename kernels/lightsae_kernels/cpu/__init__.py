"""The same operations for CPU tensors: row blocks that stay in cache, sparse gradients."""

from lightsae_kernels.cpu.adam import adam_step_
from lightsae_kernels.cpu.decode import decode_forward, residual_forward, values_gradient
from lightsae_kernels.cpu.encode import centre, encode_forward, keeps
from lightsae_kernels.cpu.encode_gradient import encode_backward
from lightsae_kernels.cpu.nested import (
    add_later_parts_,
    nested_decoder_gradient,
    nested_residuals,
    nested_values_gradient,
)
from lightsae_kernels.cpu.weight_gradients import (
    ORDER_DTYPE,
    LatentOrder,
    decoder_gradient,
    latent_order,
    order_sizes,
)
from lightsae_kernels.fixed_backend import operations_of

__getattr__ = operations_of(__name__, "cpu")

__all__ = [
    "ORDER_DTYPE",
    "LatentOrder",
    "adam_step_",
    "add_later_parts_",
    "centre",
    "decode_forward",
    "decoder_gradient",
    "encode_backward",
    "encode_forward",
    "keeps",
    "latent_order",
    "nested_decoder_gradient",
    "nested_residuals",
    "nested_values_gradient",
    "order_sizes",
    "residual_forward",
    "values_gradient",
]
