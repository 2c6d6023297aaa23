"""sparsify: what `Trainer.fit` does with one batch of activations, optimizer="adam"."""

import os

import torch
from adapter import LEARNING_RATE, Sizes, Trainer
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its Triton decoder has no CPU path

from sparsify import SparseCoder, SparseCoderConfig
from transformers import get_linear_schedule_with_warmup


def build(sizes: Sizes, sample: Tensor) -> Trainer:
    config = SparseCoderConfig(num_latents=sizes.d_sae, k=sizes.k)
    sae = SparseCoder(sizes.d_in, config, device=sample.device)
    sae.b_dec.data = sample.mean(dim=0)
    optimizer = torch.optim.Adam(sae.parameters(), lr=LEARNING_RATE)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 1_000_000)
    fired = torch.zeros(sizes.d_sae, dtype=torch.bool)

    def step(x: Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        total_variance = (x - x.mean(0)).pow(2).sum()
        out = sae(x, dead_mask=None, total_variance=total_variance)
        fired[out.latent_indices.flatten()] = True
        out.fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()

    return Trainer(step, lambda x: sae(x).sae_out, optimizer=optimizer)
