"""VISAEBench: `config.json` (or .yaml) and `sae.pt` (or model.safetensors, model.pt).

    h = ReLU(x W_enc^T + b_enc),  f = activation(h),  x_hat = f W_dec + decoder.bias

with encoder.weight and decoder.weight both [d_sae, d_in]. topk; batchtopk keeps h >= threshold;
jumprelu keeps h > jump_thresholds [d_sae]. The tensors of overcomplete are read too, whose decoder
is multiplied by exp(multiplier). Read in visaebench 0.1, hub/loader.py and hub/sae_wrapper.py.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import checked, setting
from lightsae.interop.files.safe_files import (
    file_in,
    peek_json,
    read_json,
    read_safetensors,
    read_torch,
)
from lightsae.interop.files.shown_values import shown
from lightsae.interop.files.yaml_files import peek_yaml, read_yaml
from lightsae.interop.translation.folding import folded, require_no_row_statistics
from lightsae.interop.translation.provenance import origin, original_config
from lightsae.interop.translation.rules import (
    NO_THRESHOLD,
    UNKNOWN_THRESHOLD,
    require_rule,
    threshold_rule,
    thresholds,
)
from lightsae.interop.translation.weights import Weights, autoencoder
from lightsae.sae import BatchTopK, JumpReLU, Selection, SparseAutoencoder, TopK

NAME = "visaebench"
FILES = "config.json with activation, and sae.pt, model.safetensors or model.pt"
TRANSCODERS = False

_CONFIGS = ("config.json", "config.yaml", "config.yml")
_TENSORS = ("sae.pt", "model.safetensors", "model.pt")
_RULES = ("topk", "batchtopk", "jumprelu")
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "encoder.weight": ("d_sae", "d_in"),
    "encoder.bias": ("d_sae",),
    "decoder.weight": ("d_sae", "d_in"),
    "decoder.bias": ("d_in",),
}
_OVERCOMPLETE: dict[str, tuple[int | str, ...]] = {
    "encoder.final_block.0.weight": ("d_sae", "d_in"),
    "encoder.final_block.0.bias": ("d_sae",),
    "dictionary._weights": ("d_sae", "d_in"),
    "dictionary.multiplier": (),
}
_THRESHOLDS: dict[str, tuple[int | str, ...]] = {
    "_running_threshold": (),
    "jump_thresholds": ("d_sae",),
    "thresholds": ("d_sae",),
}
# What VISAEBench takes where a jumprelu has no thresholds.
_DEFAULT_JUMP = 0.01
_DEFAULT_NOTE = f"Its files have no thresholds: they are {_DEFAULT_JUMP}, as VISAEBench takes them."


def recognizes(path: Path) -> bool:
    """Whether weights lie beside a configuration with one of the three activations."""
    if not any((path / name).is_file() for name in _TENSORS):
        return False
    config = peek_json(path / "config.json") or next(
        filter(None, (peek_yaml(path / name) for name in _CONFIGS[1:])), {}
    )
    return _activation(config) in _RULES


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder of a folder.

    A batchtopk without a threshold has none here either: VISAEBench would take 0 and keep every
    positive latent; `lightsae calibrate` finds one.

    Raises:
        LightsaeError: If it is malformed or of another activation.
    """
    config_path = _first(path, _CONFIGS)
    config = read_json(config_path) if config_path.suffix == ".json" else read_yaml(config_path)
    source = _first(path, _TENSORS)
    found = read_safetensors(source) if source.suffix == ".safetensors" else read_torch(source)
    sizes = {
        size: setting(config, name, int, config_path)
        for size, name in (("d_in", "input_dim"), ("d_sae", "hidden_dim"))
        if name in config
    }
    old = isinstance(found, Mapping) and "dictionary._weights" in found
    tensors = checked(
        found,
        source,
        (_OVERCOMPLETE if old else _SHAPES) | _THRESHOLDS,
        optional=("decoder.bias", "dictionary.multiplier", *_THRESHOLDS),
        sizes=sizes,
    )
    weights = _overcomplete_weights(tensors) if old else _weights(tensors)
    selection, threshold = _rule(config, tensors, len(weights.b_enc), config_path)
    notes = [NO_THRESHOLD] if threshold is UNKNOWN_THRESHOLD else []
    if isinstance(selection, JumpReLU) and not tensors.keys() & {"jump_thresholds", "thresholds"}:
        notes.append(_DEFAULT_NOTE)
    return autoencoder(
        weights,
        selection,
        threshold=threshold,
        apply_b_dec_to_input=False,
        provenance=origin(NAME, config, notes=notes),
    )


def _first(path: Path, names: tuple[str, ...]) -> Path:
    return file_in(path, next((name for name in names if (path / name).exists()), names[0]))


def _activation(config: Mapping[str, Any]) -> Any:
    named = [config.get(key) for key in ("activation", "sae_type", "architecture")]
    kind = next((value for value in named if value is not None), None)
    return kind.lower() if isinstance(kind, str) else kind


def _weights(tensors: Mapping[str, Tensor]) -> Weights:
    W_dec = tensors["decoder.weight"]
    b_dec = tensors.get("decoder.bias", W_dec.new_zeros(W_dec.shape[1]))
    return Weights(tensors["encoder.weight"], tensors["encoder.bias"], W_dec, b_dec)


def _overcomplete_weights(tensors: Mapping[str, Tensor]) -> Weights:
    W_dec = tensors["dictionary._weights"]
    W_dec = W_dec * tensors.get("dictionary.multiplier", W_dec.new_zeros(())).exp()
    return Weights(
        tensors["encoder.final_block.0.weight"],
        tensors["encoder.final_block.0.bias"],
        W_dec,
        W_dec.new_zeros(W_dec.shape[1]),
    )


def _rule(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], d_sae: int, path: Path
) -> tuple[Selection, Tensor | None]:
    kind = _activation(config)
    if kind not in _RULES:
        raise LightsaeError(
            f"{path}: activation is {shown(kind)}, expected one of {', '.join(_RULES)}"
        )
    if kind == "topk":
        return TopK(setting(config, "k", int, path)), None
    if kind == "jumprelu":
        given = tensors.get("jump_thresholds", tensors.get("thresholds"))
        return threshold_rule(torch.full((d_sae,), _DEFAULT_JUMP) if given is None else given)
    k = min(setting(config, "k", int, path, d_sae), d_sae)
    if config.get("threshold") is not None:
        given = setting(config, "threshold", float, path)
        least = torch.tensor(given)
        if not torch.isfinite(least):
            raise LightsaeError(f"{path}: threshold is {given}, expected a finite number")
    elif "_running_threshold" in tensors:
        least = tensors["_running_threshold"].float()
    else:
        return BatchTopK(k), UNKNOWN_THRESHOLD
    return threshold_rule(_just_below(least).expand(d_sae), k, batch=True)


def _just_below(threshold: Tensor) -> Tensor:
    """What a number is above exactly where it is at least the threshold."""
    return torch.nextafter(threshold, torch.tensor(-torch.inf))


def _just_above(threshold: Tensor) -> Tensor:
    """The inverse; 0, which rectified numbers are above, stays 0."""
    above = torch.nextafter(threshold, torch.tensor(torch.inf))
    return torch.where(threshold == 0, threshold, above)


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """config.json and model.safetensors; an input scale and subtracting b_dec are folded.

    Raises:
        LightsaeError: If VISAEBench has no such rule or normalisation.
    """
    require_rule(sae, NAME, TopK, BatchTopK, JumpReLU)
    require_no_row_statistics(sae, f"written as {NAME}")
    tensors = dict(zip(_SHAPES, folded(sae), strict=True))
    rule: dict[str, Any] = {"activation": type(sae.selection).__name__.lower()}
    if isinstance(sae.selection, JumpReLU):
        tensors["jump_thresholds"] = thresholds(sae)
    else:
        rule["k"] = sae.selection.k
    if isinstance(sae.selection, BatchTopK):
        rule["threshold"] = _just_above(thresholds(sae)[0]).item()
    config = original_config(sae, NAME) | rule | {"input_dim": sae.d_in, "hidden_dim": sae.d_sae}
    content = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return {
        "config.json": json.dumps(config, indent=2).encode(),
        "model.safetensors": serialize_tensors(content),
    }
