"""Which dtype an operation computes in."""

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """Dtype of the encoder product: autocast's where it is on, otherwise that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
