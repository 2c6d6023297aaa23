"""Gemma Scope 1 (arXiv 2408.05147) and 2: their files, and the formulas of their tutorials."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.interop.libraries.weights import random_weights


class GemmaScope:
    """h = x W_enc + b_enc; f = relu(h) where h > threshold; x_hat = f W_dec + b_dec.

    A transcoder with a skip adds x times affine_skip_connection.
    """

    def __init__(self, kind: str = "sae", *, affine: bool = False) -> None:
        self.weights, self.kind = random_weights(), kind
        d_in = self.weights.W_enc.shape[1]
        draw = torch.Generator().manual_seed(3)
        self.affine = torch.randn(d_in, d_in, generator=draw) if affine else None
        draw = torch.Generator().manual_seed(2)
        self.threshold = torch.rand(len(self.weights.b_enc), generator=draw) * 3

    def encode(self, x: Tensor) -> Tensor:
        h = x @ self.weights.W_enc.double().T + self.weights.b_enc.double()
        return torch.where(h > self.threshold.double(), h.relu(), 0.0)

    def reconstruct(self, x: Tensor) -> Tensor:
        x_hat = self.encode(x) @ self.weights.W_dec.double() + self.weights.b_dec.double()
        return x_hat if self.affine is None else x_hat + x @ self.affine.double()

    def tensors(self) -> dict[str, Tensor]:
        W_enc, b_enc, W_dec, b_dec = self.weights
        named = {"W_enc": W_enc.T.contiguous(), "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec}
        if self.affine is not None:
            named["affine_skip_connection"] = self.affine
        return {**named, "threshold": self.threshold}

    def save_1(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "params.npz", **{key: t.numpy() for key, t in self.tensors().items()})
        return folder

    def config(self) -> dict[str, Any]:
        place = target = "model.layers.17.output"
        if self.kind == "transcoder":
            place = "model.layers.17.pre_feedforward_layernorm.output"
            target = "model.layers.17.post_feedforward_layernorm.output"
        return {
            "hf_hook_point_in": place,
            "hf_hook_point_out": target,
            "width": len(self.weights.b_enc),
            "model_name": "google/gemma-3-4b-it",
            "architecture": "jump_relu",
            "l0": 20,
            "affine_connection": self.affine is not None,
            "type": self.kind,
        }

    def save_2(self, folder: Path, **changes: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        lower = {name.lower(): tensor for name, tensor in self.tensors().items()}
        save_file(lower, folder / "params.safetensors")
        (folder / "config.json").write_text(json.dumps(self.config() | changes))
        return folder
