"""OpenMOSS' Language-Model-SAEs (src/llamascopium of May 2026): its files and its formulas."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.interop.libraries.weights import random_weights

HOOK, TARGET = "blocks.3.hook_resid_post", "blocks.3.hook_mlp_out"


class OpenMOSS:
    """h = (s x) W_E + b_E; f = h where activation(h n) is not 0; x_hat = (f W_D + b_D) / s.

    s is sqrt(d_in) over the mean norm of the data (dataset-wise) or of the row (token-wise), or 1
    (inference). n is the norm of each decoder row if sparsity_include_decoder_norm, else 1. Of a
    transcoder x_hat is divided by the s of its targets.
    """

    def __init__(self, act_fn: str = "topk", norm: str = "dataset-wise", **changes: Any):
        self.weights, self.act_fn, self.norm, self.changes = random_weights(), act_fn, norm, changes
        self.mean_norm, self.target_norm = 7.5, 7.5
        draw = torch.Generator().manual_seed(2)
        self.threshold = torch.rand(len(self.weights.b_enc), generator=draw) + 0.2

    def _factor(self, x: Tensor, mean_norm: float) -> Tensor:
        if self.norm == "token-wise":
            return x.shape[1] ** 0.5 / x.norm(dim=1, keepdim=True)
        norm = mean_norm if self.norm == "dataset-wise" else x.shape[1] ** 0.5
        return torch.tensor(x.shape[1] ** 0.5 / norm, dtype=x.dtype)

    def norms(self) -> Tensor:
        n = self.weights.W_dec.double().norm(dim=1)
        return n if self.config()["sparsity_include_decoder_norm"] else torch.ones_like(n)

    def encode(self, x: Tensor) -> Tensor:
        scaled = self._factor(x, self.mean_norm) * x
        if self.config().get("apply_decoder_bias_to_pre_encoder"):
            scaled = scaled - self.weights.b_dec.double()
        h = scaled @ self.weights.W_enc.double().T + self.weights.b_enc.double()
        gate = h * self.norms()
        if self.act_fn == "topk":
            kept = gate.relu().topk(self.config()["top_k"]).indices
            return torch.zeros_like(h).scatter(1, kept, h.relu().gather(1, kept))
        least = self.threshold.log().exp().double() if self.act_fn == "jumprelu" else 0.0
        return torch.where(gate > least, h, 0.0)

    def reconstruct(self, x: Tensor) -> Tensor:
        x_hat = self.encode(x) @ self.weights.W_dec.double()
        if self.config()["use_decoder_bias"]:
            x_hat = x_hat + self.weights.b_dec.double()
        return x_hat / self._factor(x, self.target_norm)

    def config(self) -> dict[str, Any]:
        d_sae, d_in = self.weights.W_enc.shape
        config = {
            "sae_type": "sae",
            "d_model": d_in,
            "expansion_factor": d_sae / d_in,
            "use_decoder_bias": True,
            "act_fn": self.act_fn,
            "norm_activation": self.norm,
            "sparsity_include_decoder_norm": True,
            "top_k": 8,
            "use_triton_kernel": False,
            "sparsity_threshold_for_triton_spmm_kernel": 0.996,
            "jumprelu_threshold_window": 2.0,
            "hook_point_in": HOOK,
            "hook_point_out": HOOK,
            "use_glu_encoder": False,
        }
        return config | self.changes

    def tensors(self) -> dict[str, Tensor]:
        W_enc, b_enc, W_dec, b_dec = self.weights
        state = {"W_E": W_enc.T.contiguous(), "b_E": b_enc, "W_D": W_dec, "b_D": b_dec}
        if not self.config()["use_decoder_bias"]:
            del state["b_D"]
        if self.act_fn == "jumprelu":
            state["activation_function.log_jumprelu_threshold"] = self.threshold.log()
        # Without the norm of a data set, its place holds whatever the memory held.
        means = {HOOK: self.mean_norm}
        if self.config()["hook_point_out"] == TARGET:
            means[TARGET] = self.target_norm
        for place, mean in means.items():
            held = mean if self.norm == "dataset-wise" else torch.nan
            state[f"dataset_average_activation_norm.{place}"] = torch.tensor(held)
        return state

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config(), indent=4))
        save_file(self.tensors(), folder / "sae_weights.safetensors", {"version": "2.0"})
        return folder
