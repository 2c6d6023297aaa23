"""overcomplete: `train_sae` on one batch, with the criterion and optimizer of its README."""

import torch
from adapter import LEARNING_RATE, Sizes, Trainer
from overcomplete.sae import TopKSAE, train_sae
from torch import Tensor


def build(sizes: Sizes, sample: Tensor) -> Trainer:
    device = str(sample.device)
    sae = TopKSAE(sizes.d_in, nb_concepts=sizes.d_sae, top_k=sizes.k, device=device)
    optimizer = torch.optim.Adam(sae.parameters(), lr=LEARNING_RATE)

    def squared_error(x: Tensor, x_hat: Tensor, *_: Tensor) -> Tensor:
        return (x - x_hat).square().mean()

    def step(x: Tensor) -> None:
        train_sae(sae, [x], squared_error, optimizer, nb_epochs=1, monitoring=0, device=device)

    return Trainer(step, lambda x: sae(x)[2], optimizer=optimizer)
