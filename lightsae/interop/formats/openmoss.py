"""OpenMOSS' Language-Model-SAEs: `config.json` and `sae_weights.safetensors` (or .pt).

    h = (s x) W_E + b_E,  f = h where h n is active,  x_hat = (f W_D + b_D) / s

with W_E [d_in, d_sae] and W_D [d_sae, d_in]. s is sqrt(d_in) over the mean norm of the data
(dataset-wise) or over the norm of the row (token-wise), or 1 (inference); n is the norm of each
latent's decoder where sparsity_include_decoder_norm says so, which multiplies activations here;
jumprelu is active above exp(log_jumprelu_threshold). A transcoder has another hook_point_out than
hook_point_in; x_hat is then divided by the s of its targets. Read in src/llamascopium of May 2026
and src/lm_saes of 2025, whose tensors have the names of linear layers.
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
from lightsae.interop.files.safe_files import file_in, peek_json, read_json
from lightsae.interop.files.shown_values import shown
from lightsae.interop.formats.parts.openmoss_configs import places, require_plain, target_hook
from lightsae.interop.formats.parts.openmoss_tensors import (
    LOG_THRESHOLD,
    MEAN_NORM,
    TENSOR_FILES,
    mean_norm,
    tensors_by_name,
)
from lightsae.interop.translation.folding import require_no_row_statistics, shifted, weights_of
from lightsae.interop.translation.provenance import origin, original_config
from lightsae.interop.translation.rules import (
    NO_THRESHOLD,
    UNKNOWN_THRESHOLD,
    require_rule,
    threshold_rule,
    thresholds,
)
from lightsae.interop.translation.transcoders import transcoder, without_centre
from lightsae.interop.translation.unit_norm import from_mean_square_norm, to_mean_square_norm
from lightsae.interop.translation.weights import Weights, autoencoder, widened, with_unit_rows
from lightsae.sae import BatchTopK, JumpReLU, Selection, SparseAutoencoder, TopK, Transcoder

NAME = "openmoss"
FILES = "config.json and sae_weights.safetensors, or sae_weights.pt"
TRANSCODERS = True

_CONFIG = "config.json"
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "W_E": ("d_in", "d_sae"),
    "b_E": ("d_sae",),
    "W_D": ("d_sae", "d_in"),
    "b_D": ("d_in",),
}


def recognizes(path: Path) -> bool:
    """Whether there are a configuration with sae_type and weights beside it."""
    there = any((path / name).is_file() for name in TENSOR_FILES)
    return there and "sae_type" in peek_json(path / _CONFIG)


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder or transcoder of a folder; in float32 at least where folded or scaled.

    A batchtopk has no threshold in the files: `lightsae calibrate` finds one.

    Raises:
        LightsaeError: If it is malformed, has several encoders, or its inputs are normalised by
            batch, or those of a transcoder by row.
    """
    config_path = file_in(path, _CONFIG)
    config = read_json(config_path)
    require_plain(config, config_path)
    found, source = tensors_by_name(path)
    tensors = _checked(found, source, config, config_path)
    selection, threshold, weights = _rule_and_weights(config, config_path, tensors)
    hook = setting(config, "hook_point_in", str, config_path)
    target = target_hook(config, config_path)
    dataset_wise, root = _is_dataset_wise(config, config_path), math.sqrt(weights.W_enc.shape[1])
    scale, target_scale = (
        mean_norm(found, source, place) / root if dataset_wise else 1.0
        for place in (hook, target or hook)
    )
    by_row = config.get("norm_activation") == "token-wise"
    if by_row or scale != 1 or target_scale != 1:
        weights = widened(weights)
    notes = [NO_THRESHOLD] if threshold is UNKNOWN_THRESHOLD else []
    provenance = origin(NAME, config, hook=hook, target_hook=target, notes=notes)
    subtracts = bool(config.get("apply_decoder_bias_to_pre_encoder"))
    if target is not None:
        return transcoder(
            weights,
            selection,
            threshold=threshold,
            b_in=weights.b_dec if subtracts else None,
            scales=(scale, target_scale),
            provenance=provenance,
        )
    sae = autoencoder(
        from_mean_square_norm(weights) if by_row else weights,
        selection,
        threshold=threshold,
        normalization="unit_norm" if by_row else "centre_scale",
        apply_b_dec_to_input=subtracts,
        provenance=provenance,
    )
    sae.scale.fill_(scale)
    return sae


def _checked(
    found: Mapping[str, Any], source: Path, config: Mapping[str, Any], path: Path
) -> dict[str, Tensor]:
    d_in = setting(config, "d_model", int, path)
    factor = setting(config, "expansion_factor", float, path)
    if not 0 < factor < math.inf:
        raise LightsaeError(f"{path}: expansion_factor is {factor}, expected above 0")
    sizes = {"d_in": d_in, "d_sae": int(d_in * factor)}
    has_thresholds = _kind(config, path) == "jumprelu"
    has_bias = setting(config, "use_decoder_bias", bool, path, True)
    return checked(
        found,
        source,
        _SHAPES | ({LOG_THRESHOLD: ("d_sae",)} if has_thresholds else {}),
        optional=() if has_bias else ("b_D",),
        ignored=[name for name in found if name.startswith(MEAN_NORM)],
        sizes=sizes,
    )


def _kind(config: Mapping[str, Any], path: Path) -> str:
    return str(setting(config, "act_fn", str, path, "relu")).lower()


def _rule_and_weights(
    config: Mapping[str, Any], path: Path, tensors: Mapping[str, Tensor]
) -> tuple[Selection, Tensor | None, Weights]:
    """The rule, its threshold, and weights with which it looks at the activations themselves."""
    W_dec = tensors["W_D"]
    b_dec = tensors.get("b_D", W_dec.new_zeros(W_dec.shape[1]))
    weights = Weights(tensors["W_E"].mT, tensors["b_E"], W_dec, b_dec)
    kind, norms = _kind(config, path), torch.linalg.vector_norm(W_dec, dim=1)
    d_sae = len(norms)
    k = min(setting(config, "top_k", int, path, 50), d_sae)
    gated_by_norm = setting(config, "sparsity_include_decoder_norm", bool, path, True)
    if kind == "relu":
        return *threshold_rule(torch.zeros(d_sae)), weights
    if kind == "jumprelu":
        threshold = tensors[LOG_THRESHOLD].float().exp()
        if gated_by_norm:
            threshold = torch.where(norms > 0, threshold / norms, torch.inf)
        return *threshold_rule(threshold.clamp_max(torch.finfo(torch.float32).max), k), weights
    if kind not in ("topk", "batchtopk"):
        raise LightsaeError(
            f"{path}: act_fn is {shown(kind)}, expected topk, batchtopk, jumprelu or relu"
        )
    weights = with_unit_rows(weights) if gated_by_norm else weights
    if kind == "topk":
        return TopK(k), None, weights
    return BatchTopK(k), UNKNOWN_THRESHOLD, weights


def _is_dataset_wise(config: Mapping[str, Any], path: Path) -> bool:
    """Whether inputs are divided by one scale."""
    kind = setting(config, "norm_activation", str, path, "dataset-wise")
    if kind == "token-wise" and target_hook(config, path) is not None:
        raise LightsaeError(
            f"{path}: norm_activation is 'token-wise', which a transcoder undoes by the norms of "
            "its targets: expected dataset-wise or inference"
        )
    if kind not in ("dataset-wise", "token-wise", "inference"):
        raise LightsaeError(
            f"{path}: norm_activation is {shown(kind)}, expected dataset-wise, token-wise "
            "or inference"
        )
    return bool(kind == "dataset-wise")


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """Both files; scales stay, what is subtracted from inputs is folded.

    A BatchTopK is written as the jumprelu it is at inference: OpenMOSS' own looks at the batch.

    Raises:
        LightsaeError: If OpenMOSS has no such rule or normalisation, or the transcoder has a skip
            or two widths.
    """
    require_rule(sae, NAME, TopK, BatchTopK, JumpReLU)
    hook, target = places(sae, NAME)
    weights, normalization, norms = _normalized(sae)
    tensors = {
        "W_E": weights.W_enc.mT.contiguous(),
        "b_E": weights.b_enc,
        "W_D": weights.W_dec.contiguous(),
        "b_D": weights.b_dec,
    } | {MEAN_NORM + place: norm for place, norm in zip((hook, target), norms, strict=True)}
    kind = "topk"
    if not isinstance(sae.selection, TopK):
        least = thresholds(sae)
        kind = "jumprelu" if least.any() else "relu"
        if kind == "jumprelu":
            tensors[LOG_THRESHOLD] = least.clamp_min(torch.finfo(least.dtype).tiny).log()
    config = original_config(sae, NAME) | {
        "sae_type": "sae",
        "hook_point_in": hook,
        "hook_point_out": target,
        "d_model": sae.d_in,
        "expansion_factor": _expansion_factor(sae),
        "act_fn": kind,
        "top_k": sae.selection.k,
        "norm_activation": normalization,
        "sparsity_include_decoder_norm": False,
        "use_decoder_bias": True,
        "use_glu_encoder": False,
    }
    config.pop("apply_decoder_bias_to_pre_encoder", None)
    return {
        _CONFIG: json.dumps(config, indent=2).encode(),
        TENSOR_FILES[0]: serialize_tensors(tensors),
    }


def _normalized(sae: SparseAutoencoder) -> tuple[Weights, str, list[Tensor]]:
    """Weights with which nothing is subtracted, OpenMOSS' word for a normalisation, mean norms."""
    scales, weights = [sae.scale, sae.scale], weights_of(sae)
    if isinstance(sae, Transcoder):
        scales, weights = [sae.scale, sae.target_scale], without_centre(sae)[0]
    elif sae.apply_b_dec_to_input:
        weights = shifted(weights, -1)
    # In float64 a norm is read as the very scale that it was.
    norms = [scale.double() * math.sqrt(sae.d_in) for scale in scales]
    if sae.normalization == "unit_norm" and not isinstance(sae, Transcoder):
        return to_mean_square_norm(weights), "token-wise", norms
    require_no_row_statistics(sae, f"written as {NAME}")
    plain = all(scale == 1 for scale in scales)
    return weights, "inference" if plain else "dataset-wise", norms


def _expansion_factor(sae: SparseAutoencoder) -> float:
    """The factor that gives d_sae when OpenMOSS multiplies by d_in and drops the fraction."""
    factor = sae.d_sae / sae.d_in
    return factor if int(sae.d_in * factor) == sae.d_sae else math.nextafter(factor, math.inf)
