"""ViT-Prisma (src/vit_prisma/sae of May 2025): its files and its formulas."""

import json
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tests.interop.libraries.weights import random_weights


class Prisma:
    """h = (x' - b_dec) W_enc + b_enc; f = activation(h); x_hat' = f W_dec + b_dec.

    layer_norm: x' is x less its mean over its unbiased standard deviation + 1e-5, and
    x_hat = x_hat' std + mean. constant_norm_rescale: x' = c x, x_hat = x_hat' / c with
    c = sqrt(d_in) / ||x||. Otherwise x' is x.
    """

    def __init__(self, activation: str = "topk", norm: str | None = "layer_norm", **changes: Any):
        self.weights, self.activation, self.norm = random_weights(), activation, norm
        self.changes = changes

    def _factor(self, x: Tensor) -> Tensor:
        return x.shape[1] ** 0.5 / x.norm(dim=1, keepdim=True)

    def encode(self, x: Tensor) -> Tensor:
        W_enc, b_enc, _, b_dec = (tensor.double() for tensor in self.weights)
        if self.norm == "layer_norm":
            x = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)
        elif self.norm == "constant_norm_rescale":
            x = x * self._factor(x)
        h = (x - b_dec) @ W_enc.T + b_enc
        if self.activation == "relu":
            return h.relu()
        kept = h.topk(8)
        return torch.zeros_like(h).scatter(1, kept.indices, kept.values.relu())

    def reconstruct(self, x: Tensor) -> Tensor:
        x_hat = self.encode(x) @ self.weights.W_dec.double() + self.weights.b_dec.double()
        if self.norm == "layer_norm":
            return x_hat * x.std(1, keepdim=True) + x.mean(1, keepdim=True)
        return x_hat / self._factor(x) if self.norm == "constant_norm_rescale" else x_hat

    def config(self) -> dict[str, Any]:
        d_sae, d_in = self.weights.W_enc.shape
        config = {
            "model_name": "open-clip:laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
            "hook_point_layer": 9,
            "layer_subtype": "hook_resid_post",
            "architecture": "standard",
            "d_in": d_in,
            "expansion_factor": d_sae // d_in,
            "activation_fn_str": self.activation,
            "activation_fn_kwargs": {"k": 8} if self.activation == "topk" else {},
            "normalize_activations": self.norm,
            "is_transcoder": False,
            "_device": "cuda",
            "_dtype": "float32",
        }
        return config | self.changes

    def state(self) -> dict[str, Tensor]:
        W_enc, b_enc, W_dec, b_dec = self.weights
        return OrderedDict(W_dec=W_dec, W_enc=W_enc.T.contiguous(), b_enc=b_enc, b_dec=b_dec)

    def save(self, folder: Path, name: str = "weights.pt") -> Path:
        """As on the hub: config.json and the tensors."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config()))
        torch.save(self.state(), folder / name)
        return folder

    def save_whole(self, path: Path) -> Path:
        """As `save_model` does: the configuration is an object of Prisma's own class."""
        attributes = self.config() | {"device": torch.device("cpu"), "dtype": torch.float32}
        with _prisma_class() as configuration:
            torch.save({"cfg": configuration(attributes), "state_dict": self.state()}, path)
        return path


class _prisma_class:
    """A class by the name of Prisma's configuration, which is gone when the file is read."""

    _MODULES = ("vit_prisma", "vit_prisma.sae", "vit_prisma.sae.config")

    def __enter__(self) -> Any:
        for name in self._MODULES:
            sys.modules[name] = ModuleType(name)

        class VisionModelSAERunnerConfig:
            def __init__(self, attributes: dict[str, Any]) -> None:
                self.__dict__.update(attributes)

        VisionModelSAERunnerConfig.__module__ = self._MODULES[-1]
        VisionModelSAERunnerConfig.__qualname__ = "VisionModelSAERunnerConfig"
        sys.modules[self._MODULES[-1]].VisionModelSAERunnerConfig = VisionModelSAERunnerConfig  # type: ignore[attr-defined]
        return VisionModelSAERunnerConfig

    def __exit__(self, *_: object) -> None:
        for name in self._MODULES:
            del sys.modules[name]
