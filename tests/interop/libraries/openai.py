"""openai/sparse_autoencoder (model.py of June 2024): its files and its formulas."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.interop.libraries.weights import random_weights


class OpenAI:
    """f = activation((x' - pre_bias) W_enc + latent_bias); x_hat' = f W_dec + pre_bias.

    With TopK, x' is x less its mean over its unbiased standard deviation + 1e-5, and
    x_hat = x_hat' std + mean; with ReLU, x' is x.
    """

    def __init__(self, activation: str = "TopK", k: int = 8, postact: str = "ReLU"):
        self.weights, self.activation, self.k, self.postact = (
            random_weights(),
            activation,
            k,
            postact,
        )

    def encode(self, x: Tensor) -> Tensor:
        W_enc, b_enc, _, b_dec = (tensor.double() for tensor in self.weights)
        if self.activation == "TopK":
            x = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)
        h = (x - b_dec) @ W_enc.T + b_enc
        if self.activation == "ReLU":
            return h.relu()
        kept = h.topk(self.k)
        return torch.zeros_like(h).scatter(1, kept.indices, kept.values.relu())

    def reconstruct(self, x: Tensor) -> Tensor:
        x_hat = self.encode(x) @ self.weights.W_dec.double() + self.weights.b_dec.double()
        if self.activation == "TopK":
            return x_hat * x.std(1, keepdim=True) + x.mean(1, keepdim=True)
        return x_hat

    def state(self) -> dict[str, Any]:
        W_enc, b_enc, W_dec, b_dec = self.weights
        count = len(b_enc)
        activation: dict[str, Any] = {}
        if self.activation == "TopK":
            activation = {"k": self.k, "postact_fn": self.postact}
        twice = {f"activation.{name}": value for name, value in activation.items()}
        return OrderedDict(
            pre_bias=b_dec,
            latent_bias=b_enc,
            stats_last_nonzero=torch.zeros(count, dtype=torch.long),
            latents_activation_frequency=torch.ones(count),
            latents_mean_square=torch.zeros(count),
            **{"encoder.weight": W_enc, "decoder.weight": W_dec.T.contiguous()},
            **twice,
            activation=self.activation,
            activation_state_dict=OrderedDict(activation),
        )

    def save(self, path: Path) -> Path:
        torch.save(self.state(), path)
        return path
