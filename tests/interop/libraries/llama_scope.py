"""Llama Scope (arXiv 2410.20526) by its loader (Language-Model-SAEs v1, src/lm_saes/sae.py)."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.interop.libraries.weights import random_weights


class LlamaScope:
    """The loader folds, then h = x W_enc + b_enc; f = h where h > threshold, one for all latents.

    With s = sqrt(d_in) / mean norm, it divides both biases by s; then it brings the decoder to unit
    norm, multiplying W_enc and b_enc by what the decoder is divided by. Of a transcoder the decoder
    and its bias have an s of the targets, and W_dec is multiplied by the first over the second.
    """

    def __init__(self, mean_norm: float = 6.3125, act_fn: str = "jumprelu", threshold: float = 1.2):
        # The published files hold bfloat16.
        self.weights = [tensor.bfloat16() for tensor in random_weights()]
        self.mean_norm, self.act_fn, self.threshold = mean_norm, act_fn, threshold
        self.changes: dict[str, Any] = {}

    def _folded(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        W_enc, b_enc, W_dec, b_dec = (tensor.double() for tensor in self.weights)
        means, root = self.config()["dataset_average_activation_norm"], W_enc.shape[1] ** 0.5
        factor, factor_out = root / means["in"], root / means["out"]
        W_dec = W_dec * factor / factor_out
        norms = (
            W_dec.norm(dim=1) if self.config()["sparsity_include_decoder_norm"] else 1.0 + 0 * b_enc
        )
        return (
            W_enc * norms[:, None],
            b_enc / factor * norms,
            W_dec / norms[:, None],
            b_dec / factor_out,
        )

    def encode(self, x: Tensor) -> Tensor:
        W_enc, b_enc, _, b_dec = self._folded()
        config = self.config()
        h = (x - b_dec if config["apply_decoder_bias_to_pre_encoder"] else x) @ W_enc.T + b_enc
        if self.act_fn == "topk":
            kept = h.relu().topk(config["top_k"])
            return torch.zeros_like(h).scatter(1, kept.indices, kept.values)
        least = config["jump_relu_threshold"] if self.act_fn == "jumprelu" else 0.0
        return torch.where(h > least, h, 0.0)

    def reconstruct(self, x: Tensor) -> Tensor:
        _, _, W_dec, b_dec = self._folded()
        return self.encode(x) @ W_dec + b_dec

    def config(self) -> dict[str, Any]:
        d_sae, d_in = self.weights[0].shape
        place = "blocks.8.hook_resid_post"
        config = {
            "hook_point_in": place,
            "hook_point_out": place,
            "use_decoder_bias": True,
            "apply_decoder_bias_to_pre_encoder": False,
            "expansion_factor": d_sae // d_in,
            "d_model": d_in,
            "d_sae": d_sae,
            "act_fn": self.act_fn,
            "jump_relu_threshold": self.threshold,
            "norm_activation": "dataset-wise",
            "dataset_average_activation_norm": {"in": self.mean_norm, "out": self.mean_norm},
            "sparsity_include_decoder_norm": True,
            "use_glu_encoder": False,
            "top_k": 8,
        }
        return config | self.changes

    def save(self, folder: Path) -> Path:
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "hyperparams.json").write_text(json.dumps(self.config()))
        W_enc, b_enc, W_dec, b_dec = self.weights
        tensors = {
            "encoder.weight": W_enc,
            "encoder.bias": b_enc,
            "decoder.weight": W_dec.T.contiguous(),
            "decoder.bias": b_dec,
        }
        save_file(tensors, folder / "checkpoints" / "final.safetensors", {"version": "1.0"})
        return folder
