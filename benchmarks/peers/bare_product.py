"""The encoder product alone, in bf16, by the library: what a step is measured against."""

import torch
from adapter import Sizes, Trainer
from torch import Tensor


def build(sizes: Sizes, sample: Tensor) -> Trainer:
    weight = torch.randn(sizes.d_sae, sizes.d_in, dtype=torch.bfloat16)
    out = torch.empty(sizes.batch, sizes.d_sae, dtype=torch.bfloat16)

    def step(x: Tensor) -> None:
        torch.mm(x, weight.t(), out=out)

    return Trainer(step, None)
