"""Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`.

    h = x W_enc^T + b_enc,  f = h where h > threshold,  x_hat = f W_dec^T + b_dec

with encoder.weight [d_sae, d_in], decoder.weight [d_in, d_sae] and one threshold for all latents,
after what their loader does: with s = sqrt(d_in) / mean norm of the data, both biases are divided
by s; then every latent's decoder is brought to unit norm, W_enc and b_enc multiplied by what it is
divided by. A transcoder has another hook_point_out than hook_point_in and an s of either: b_dec is
divided by that of its targets, and W_dec multiplied by the first over the second. Read in OpenMOSS'
Language-Model-SAEs of November 2024, src/lm_saes/sae.py (arXiv 2410.20526).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import checked, setting
from lightsae.interop.files.safe_files import file_in, peek_json, read_json, read_safetensors
from lightsae.interop.files.shown_values import shown
from lightsae.interop.formats.parts.openmoss_configs import places, require_plain, target_hook
from lightsae.interop.translation.folding import folded, require_no_row_statistics, weights_of
from lightsae.interop.translation.provenance import origin, original_config
from lightsae.interop.translation.rules import require_rule, threshold_rule, thresholds
from lightsae.interop.translation.transcoders import folded_transcoder, transcoder
from lightsae.interop.translation.weights import Weights, autoencoder, widened, with_unit_rows
from lightsae.sae import BatchTopK, JumpReLU, Selection, SparseAutoencoder, TopK, Transcoder

NAME = "llama_scope"
FILES = "hyperparams.json and checkpoints/final.safetensors"
TRANSCODERS = True

_CONFIG, _TENSORS = "hyperparams.json", "checkpoints/final.safetensors"
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "encoder.weight": ("d_sae", "d_in"),
    "encoder.bias": ("d_sae",),
    "decoder.weight": ("d_in", "d_sae"),
    "decoder.bias": ("d_in",),
}


def recognizes(path: Path) -> bool:
    """Whether both files are there."""
    return (path / _TENSORS).is_file() and "act_fn" in peek_json(path / _CONFIG)


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder or transcoder of a folder, folded as its loader does: in float32 at least.

    Raises:
        LightsaeError: If it is malformed, has a second encoder, or its inputs are normalised by row
            or by batch.
    """
    config_path = file_in(path, _CONFIG)
    config = read_json(config_path)
    require_plain(config, config_path)
    source = file_in(path, _TENSORS)
    sizes = {
        "d_in": setting(config, "d_model", int, config_path),
        "d_sae": setting(config, "d_sae", int, config_path),
    }
    has_bias = setting(config, "use_decoder_bias", bool, config_path, True)
    optional = () if has_bias else ("decoder.bias",)
    tensors = checked(read_safetensors(source), source, _SHAPES, optional=optional, sizes=sizes)
    target = target_hook(config, config_path)
    weights = _in_units_of_data(_weights(tensors), config, config_path, target is not None)
    if setting(config, "sparsity_include_decoder_norm", bool, config_path, True):
        weights = with_unit_rows(weights)
    selection, threshold = _rule(config, len(weights.b_enc), config_path)
    subtracts = setting(config, "apply_decoder_bias_to_pre_encoder", bool, config_path, True)
    hook = setting(config, "hook_point_in", str, config_path)
    provenance = origin(NAME, config, hook=hook, target_hook=target)
    if target is not None:
        b_in = weights.b_dec if subtracts else None
        return transcoder(weights, selection, threshold=threshold, b_in=b_in, provenance=provenance)
    return autoencoder(
        weights,
        selection,
        threshold=threshold,
        apply_b_dec_to_input=subtracts,
        provenance=provenance,
    )


def _weights(tensors: Mapping[str, Tensor]) -> Weights:
    W_dec = tensors["decoder.weight"].mT
    b_dec = tensors.get("decoder.bias", W_dec.new_zeros(W_dec.shape[1]))
    return Weights(tensors["encoder.weight"], tensors["encoder.bias"], W_dec, b_dec)


def _in_units_of_data(
    weights: Weights, config: Mapping[str, Any], path: Path, transcodes: bool
) -> Weights:
    kind = setting(config, "norm_activation", str, path, "token-wise")
    if kind in ("inference", "none"):
        return weights
    if kind != "dataset-wise":
        raise LightsaeError(
            f"{path}: norm_activation is {shown(kind)}, expected dataset-wise, inference or none"
        )
    norms = setting(config, "dataset_average_activation_norm", dict, path)
    norm_in, norm_out = (setting(norms, name, float, path) for name in ("in", "out"))
    fit = all(0 < norm < math.inf for norm in (norm_in, norm_out))
    if not fit or (norm_in != norm_out and not transcodes):
        expected = "in and out above 0" if transcodes else "equal in and out above 0"
        raise LightsaeError(
            f"{path}: dataset_average_activation_norm is {shown(norms)}, expected {expected}"
        )
    (W_enc, b_enc, W_dec, b_dec), root = widened(weights), math.sqrt(weights.W_enc.shape[1])
    W_dec = W_dec * (norm_out / norm_in)
    return Weights(W_enc, b_enc / (root / norm_in), W_dec, b_dec / (root / norm_out))


def _rule(config: Mapping[str, Any], d_sae: int, path: Path) -> tuple[Selection, Tensor | None]:
    kind = setting(config, "act_fn", str, path).lower()
    k = min(setting(config, "top_k", int, path, 50), d_sae)
    if kind == "relu":
        return threshold_rule(torch.zeros(d_sae))
    if kind == "jumprelu":
        least = setting(config, "jump_relu_threshold", float, path, 0.0)
        if not 0 <= least <= torch.finfo(torch.float32).max:
            raise LightsaeError(f"{path}: jump_relu_threshold is {least}, expected at least 0")
        return threshold_rule(torch.full((d_sae,), least), k)
    if kind == "topk":
        return TopK(k), None
    raise LightsaeError(f"{path}: act_fn is {shown(kind)}, expected jumprelu, topk or relu")


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """Both files; scales and what is subtracted from inputs are folded.

    Raises:
        LightsaeError: If it has a threshold for each latent, a skip or two widths, or is normalised
            by row.
    """
    require_rule(sae, NAME, TopK, BatchTopK, JumpReLU)
    require_no_row_statistics(sae, f"written as {NAME}")
    hook, target = places(sae, NAME)
    weights = weights_of(folded_transcoder(sae)) if isinstance(sae, Transcoder) else folded(sae)
    tensors = {
        "encoder.weight": weights.W_enc,
        "encoder.bias": weights.b_enc,
        "decoder.weight": weights.W_dec.mT.contiguous(),
        "decoder.bias": weights.b_dec,
    }
    kind, least = "topk", 0.0
    if not isinstance(sae.selection, TopK):
        each = thresholds(sae)
        if not (each == each[0]).all():
            raise LightsaeError(
                "llama_scope has one threshold for all latents: export it as openmoss"
            )
        kind, least = "jumprelu", each[0].item()
    # A mean norm of sqrt(d_in) says that inputs are used as they are, to readers that only scale.
    norm = math.sqrt(sae.d_in)
    config = original_config(sae, NAME) | {
        "hook_point_in": hook,
        "hook_point_out": target,
        "d_model": sae.d_in,
        "d_sae": sae.d_sae,
        "act_fn": kind,
        "jump_relu_threshold": least,
        "top_k": sae.selection.k,
        "norm_activation": "inference",
        "dataset_average_activation_norm": {"in": norm, "out": norm},
        "sparsity_include_decoder_norm": False,
        "apply_decoder_bias_to_pre_encoder": False,
        "use_decoder_bias": True,
        "use_glu_encoder": False,
    }
    return {_CONFIG: json.dumps(config, indent=2).encode(), _TENSORS: serialize_tensors(tensors)}
