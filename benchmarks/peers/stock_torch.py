"""The same step in plain torch: dense codes and autograd, or sparse gradients by hand."""

from contextlib import nullcontext
from typing import Any

import torch
from adapter import LEARNING_RATE, Phases, Sizes, Trainer, compile_for
from torch import Tensor, nn
from torch.nn import functional as F


class SparseEncode(torch.autograd.Function):
    """Linear, ReLU, Top-k; gradients only through the selected latents."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Values and indices, [B, k]."""
        values, indices = F.linear(x, weight, bias).relu_().topk(k, sorted=False)
        values = values.to(weight.dtype)
        ctx.save_for_backward(x, weight, values, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Any, d_values: Tensor, _: None) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        x, weight, values, indices = ctx.saved_tensors
        d_values = d_values * (values > 0)
        chosen = indices.flatten()
        d_x = F.embedding_bag(indices, weight, per_sample_weights=d_values, mode="sum")
        contributions = (d_values.unsqueeze(2) * x.unsqueeze(1)).flatten(0, 1)
        d_weight = torch.zeros_like(weight).index_add_(0, chosen, contributions)
        d_bias = weight.new_zeros(len(weight)).index_add_(0, chosen, d_values.flatten())
        return d_x, d_weight, d_bias, None


class PlainAutoencoder(nn.Module):
    """Same parameters and initial values as this package's autoencoder."""

    def __init__(self, sizes: Sizes, sample: Tensor, sparse: bool):
        super().__init__()
        rows = F.normalize(torch.randn(sizes.d_sae, sizes.d_in), dim=1)
        self.W_enc, self.W_dec = nn.Parameter(rows), nn.Parameter(rows.clone())
        self.b_enc = nn.Parameter(torch.zeros(sizes.d_sae))
        self.b_dec = nn.Parameter(sample.mean(dim=0))
        self.k, self.sparse = sizes.k, sparse

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction of x, [B, d_in]."""
        if self.sparse:
            values, indices = SparseEncode.apply(x - self.b_dec, self.W_enc, self.b_enc, self.k)
            code = F.embedding_bag(indices, self.W_dec, per_sample_weights=values, mode="sum")
            return code + self.b_dec
        a = F.linear(x - self.b_dec, self.W_enc, self.b_enc).relu()
        values, indices = a.topk(self.k)
        return torch.zeros_like(a).scatter(1, indices, values) @ self.W_dec + self.b_dec


def build(
    sizes: Sizes, sample: Tensor, sparse: bool, bf16: bool = False, compiled: bool = False
) -> Trainer:
    sae = PlainAutoencoder(sizes, sample, sparse)
    optimizer = torch.optim.Adam(sae.parameters(), lr=LEARNING_RATE, fused=True)

    def loss_of(x: Tensor) -> Tensor:
        return (x - sae(x)).square().sum(dim=1).mean()

    run = compile_for(sample.device, loss_of) if compiled else loss_of

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16) if bf16 else nullcontext():
            return run(x)

    @torch.no_grad()
    def update() -> None:
        along = (sae.W_dec.grad * sae.W_dec).sum(dim=1, keepdim=True)
        sae.W_dec.grad.addcmul_(along, sae.W_dec, value=-1)
        optimizer.step()
        optimizer.zero_grad()
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))

    return Trainer.of(Phases(forward, Tensor.backward, update), sae, optimizer)
