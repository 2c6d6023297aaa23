"""saev (OSU-NLP-Group/saev, src/saev/nn/modeling.py of March 2026): its files and its formulas."""

import io
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.interop.libraries.weights import random_weights


class Saev:
    """h = x W_enc + b_enc, without b_dec; f = activation(h); x_hat = f W_dec + b_dec.

    TopK keeps the k largest h, negative ones too. BatchTopK keeps h > threshold, or h > 0 where the
    threshold is not positive. Until schema 2, h was of x - b_dec.
    """

    def __init__(self, activation: str, top_k: int = 8, threshold: float = 1.5, schema: Any = 5):
        self.weights, self.activation, self.k = random_weights(), activation, top_k
        self.threshold, self.schema = torch.tensor(threshold), schema

    def encode(self, x: Tensor) -> Tensor:
        W_enc, b_enc, _, b_dec = (tensor.double() for tensor in self.weights)
        h = (x - b_dec if self.schema in (None, 1) else x) @ W_enc.T + b_enc
        if self.activation == "Relu":
            return h.relu()
        if self.activation == "BatchTopK":
            return torch.where(h > max(self.threshold.item(), 0.0), h, 0.0)
        kept = h.topk(self.k).indices
        return torch.zeros_like(h).scatter(1, kept, h.gather(1, kept))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.encode(x) @ self.weights.W_dec.double() + self.weights.b_dec.double()

    def tensors(self) -> dict[str, Tensor]:
        W_enc, b_enc, W_dec, b_dec = self.weights
        state = OrderedDict(W_dec=W_dec, b_dec=b_dec, W_enc=W_enc.T.contiguous(), b_enc=b_enc)
        if self.activation == "BatchTopK":
            state["activation.threshold"] = self.threshold
        return state

    def header(self) -> dict[str, Any]:
        d_sae, d_in = self.weights.W_enc.shape
        old = {"d_vit": d_in, "exp_factor": d_sae // d_in, "seed": 7, "n_reinit_samples": 64}
        if self.schema is None:
            return {**old, "sparsity_coeff": 4e-4, "ghost_grads": False, "normalize_w_dec": True}
        if self.schema == 1:
            cfg = {**old, "normalize_w_dec": True, "remove_parallel_grads": True}
            if self.activation != "Relu":
                cfg["top_k"] = self.k
            return {"schema": 1, "cfg": cfg, "cls": self.activation, "commit": "1f", "lib": "0.2"}
        params = {} if self.activation == "Relu" else {"top_k": self.k}
        if self.schema == 5:
            params |= {"key": "no", "sparsity": {"cls": "NoSparsity", "params": {}}}
        cfg = {
            **(old if self.schema == 2 else {"d_model": d_in, "d_sae": d_sae}),
            "activation": {"cls": self.activation, "params": params},
            "remove_parallel_grads": True,
            "normalize_w_dec": True,
        }
        return {"schema": self.schema, "cfg": cfg, "commit": "1f", "lib": "0.5"}

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(json.dumps(self.header()).encode() + b"\n")
            torch.save(self.tensors(), file)
        return path


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors as saev's `load` takes a file apart."""
    with path.open("rb") as file:
        header = json.loads(file.readline())
        return header, torch.load(io.BytesIO(file.read()), weights_only=True)
