"""VISAEBench 0.1 (visaebench/hub/sae_wrapper.py and loader.py): its files and its formulas."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.interop.libraries.weights import random_weights


class Visaebench:
    """h = relu(x W_enc + b_enc); f = activation(h); x_hat = f W_dec (+ decoder.bias).

    batchtopk keeps h >= threshold, jumprelu h > threshold. In overcomplete's names there is no
    decoder bias, and the decoder is multiplied by exp(multiplier).
    """

    def __init__(self, activation: str = "topk", names: str = "simple", **config: Any):
        self.weights, self.activation, self.names = random_weights(), activation, names
        draw = torch.Generator().manual_seed(2)
        self.threshold, self.multiplier = torch.tensor(1.25), torch.tensor(0.5)
        self.jump_thresholds = torch.rand(len(self.weights.b_enc), generator=draw) * 3
        self.given = config

    def encode(self, x: Tensor) -> Tensor:
        h = (x @ self.weights.W_enc.double().T + self.weights.b_enc.double()).relu()
        if self.activation == "topk":
            kept = h.topk(8)
            return torch.zeros_like(h).scatter(1, kept.indices, kept.values)
        if self.activation == "batchtopk":
            return torch.where(h >= self.threshold.double(), h, 0.0)
        return torch.where(h > self.jump_thresholds.double(), h, 0.0)

    def reconstruct(self, x: Tensor) -> Tensor:
        W_dec = self.weights.W_dec.double()
        if self.names == "overcomplete":
            return self.encode(x) @ (W_dec * self.multiplier.double().exp())
        return self.encode(x) @ W_dec + self.weights.b_dec.double()

    def config(self) -> dict[str, Any]:
        d_sae, d_in = self.weights.W_enc.shape
        config: dict[str, Any] = {"input_dim": d_in, "hidden_dim": d_sae, "backbone": "dinov2"}
        if self.activation == "topk":
            config["k"] = 8
        return {"activation": self.activation, **config, **self.given}

    def tensors(self) -> dict[str, Tensor]:
        W_enc, b_enc, W_dec, b_dec = self.weights
        state = {
            "encoder.weight": W_enc,
            "encoder.bias": b_enc,
            "decoder.weight": W_dec,
            "decoder.bias": b_dec,
        }
        if self.names == "overcomplete":
            state = {
                "encoder.final_block.0.weight": W_enc,
                "encoder.final_block.0.bias": b_enc,
                "dictionary._weights": W_dec,
                "dictionary.multiplier": self.multiplier,
            }
        if self.activation == "batchtopk":
            state["_running_threshold"] = self.threshold
        if self.activation == "jumprelu":
            state["jump_thresholds"] = self.jump_thresholds
        return state

    def save(self, folder: Path, name: str = "sae.pt") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config()))
        if name.endswith(".safetensors"):
            save_file(self.tensors(), folder / name)
        else:
            torch.save(self.tensors(), folder / name)
        return folder
