"""What the tests of the fused encode_topk share: penalties, shapes, tolerances, one run."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightsae_kernels import encode_topk

Make = Callable[..., Any]


Close = Callable[..., None]


NAMES = ("x", "W_enc", "b_enc", "b_dec")


REGULARIZERS = [None, "off_support_l1", "l1_l2_ratio"]


PENALTIES = [
    pytest.param(None, True, id="plain"),
    pytest.param("off_support_l1", True, id="reg1-masked"),
    pytest.param("off_support_l1", False, id="reg1-unmasked"),
    pytest.param("l1_l2_ratio", True, id="reg2-masked"),
    pytest.param("l1_l2_ratio", False, id="reg2-unmasked"),
]


def leaves(problem: Any, dtype: torch.dtype, device: torch.device) -> Any:
    # Scaled so that sums over d_in stay in the range of fp16.
    return [t.to(dtype).to(device).clone().requires_grad_() for t in problem.encoder]


def run(tensors: Any, k: int, backend: str, **options: Any) -> tuple[Any, Any]:
    encoded = encode_topk(*tensors, k, backend=backend, **options)
    upstream = torch.randn(encoded.values.shape, generator=torch.Generator().manual_seed(9))
    loss = (encoded.values * upstream.to(encoded.values)).sum() + 0.7 * encoded.penalty
    return encoded, torch.autograd.grad(loss, tensors)
