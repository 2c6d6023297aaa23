"""SAELens 6: `cfg.json` and `sae_weights.safetensors`.

W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_enc, b_dec, and of jumprelu threshold [d_sae]:

    a = ReLU(W_enc^T (x - b_dec) + b_enc),  x_hat = a W_dec + b_dec

topk takes the k largest before ReLU, which are the same after it; jumprelu keeps those whose
pre-activation is above the threshold. Read in sae-lens 6.54.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import checked, require_ones, setting
from lightsae.interop.files.safe_files import file_in, peek_json, read_json, read_safetensors
from lightsae.interop.files.shown_values import shown
from lightsae.interop.formats.parts.saelens_configs import as_of_version_6, is_of_version_6
from lightsae.interop.translation.folding import (
    require_no_row_statistics,
    weights_of,
    without_scale,
)
from lightsae.interop.translation.provenance import origin, original_config
from lightsae.interop.translation.rules import require_rule, threshold_rule, thresholds
from lightsae.interop.translation.unit_norm import from_mean_square_norm, to_mean_square_norm
from lightsae.interop.translation.weights import Weights, autoencoder, with_unit_rows
from lightsae.sae import BatchTopK, JumpReLU, Normalization, Selection, SparseAutoencoder, TopK

NAME = "saelens"
FILES = "cfg.json and sae_weights.safetensors"
TRANSCODERS = False

_CONFIG, _TENSORS = "cfg.json", "sae_weights.safetensors"
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "W_enc": ("d_in", "d_sae"),
    "b_enc": ("d_sae",),
    "W_dec": ("d_sae", "d_in"),
    "b_dec": ("d_in",),
}
# expected_average_only_in is folded into the weights when saved; what still says so is used as is.
_NORMALIZATIONS: dict[str, Normalization] = {
    "none": "none",
    "expected_average_only_in": "none",
    "constant_norm_rescale": "unit_norm",
    "layer_norm": "layer_norm_unbiased",
}
# From this version on a configuration is read as it stands.
_VERSION = "6.0.0"


def recognizes(path: Path) -> bool:
    """Whether both files are there."""
    return (path / _TENSORS).is_file() and bool(peek_json(path / _CONFIG))


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder of a folder; pre-activations times decoder norms are folded.

    Raises:
        LightsaeError: If a file is malformed, or the architecture is not standard, topk or
            jumprelu.
    """
    config_path = file_in(path, _CONFIG)
    written = read_json(config_path)
    config = as_of_version_6(written, config_path)
    architecture = setting(config, "architecture", str, config_path)
    if architecture not in ("standard", "topk", "jumprelu"):
        raise LightsaeError(
            f"{config_path}: architecture is {shown(architecture)}, {_why(architecture)}"
        )
    shapes = _SHAPES | ({"threshold": ("d_sae",)} if architecture == "jumprelu" else {})
    sizes = {name: setting(config, name, int, config_path) for name in ("d_in", "d_sae")}
    tensors_path = file_in(path, _TENSORS)
    found = read_safetensors(tensors_path)
    require_ones(found.get("scaling_factor"), "scaling_factor", tensors_path)
    tensors = checked(found, tensors_path, shapes, ignored=("scaling_factor",), sizes=sizes)
    weights = Weights(
        tensors["W_enc"].mT, tensors["b_enc"], tensors["W_dec"], tensors["b_dec"]
    )  # fmt: skip
    selection, threshold = _rule(architecture, config, tensors, config_path)
    if architecture == "topk" and config.get("rescale_acts_by_decoder_norm"):
        weights = with_unit_rows(weights)
    normalization = _normalization(config, config_path)
    if normalization == "unit_norm":
        weights = from_mean_square_norm(weights)
    metadata = config["metadata"]
    return autoencoder(
        weights,
        selection,
        threshold=threshold,
        normalization=normalization,
        apply_b_dec_to_input=setting(config, "apply_b_dec_to_input", bool, config_path, True),
        provenance=origin(
            NAME,
            written,
            model=metadata.get("model_name"),
            hook=metadata.get("hook_name"),
            layer=metadata.get("hook_layer"),
            version=metadata.get("sae_lens_version"),
        ),
    )


def _why(architecture: str) -> str:
    """What cannot be done with an architecture, and what can."""
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        return "which is a training checkpoint: write it with save_inference_model"
    if architecture == "gated":
        return "whose gate is a second encoder: expected standard, topk or jumprelu"
    return "expected standard, topk or jumprelu"


def _rule(
    architecture: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> tuple[Selection, Tensor | None]:
    if architecture == "topk":
        return TopK(setting(config, "k", int, path)), None
    threshold = tensors.get("threshold", torch.zeros_like(tensors["b_enc"]))
    metadata = config["metadata"]
    details = metadata.get("training_architecture_details")
    k = details.get("k") if isinstance(details, dict) else None
    batch = "batchtopk" in str(metadata.get("training_architecture"))
    return threshold_rule(threshold, k, batch=batch)


def _normalization(config: Mapping[str, Any], path: Path) -> Normalization:
    kind = setting(config, "normalize_activations", str, path, "none")
    if kind not in _NORMALIZATIONS:
        known = ", ".join(_NORMALIZATIONS)
        raise LightsaeError(
            f"{path}: normalize_activations is {shown(kind)}, expected one of {known}; "
            "SAELens folds others when it saves"
        )
    return _NORMALIZATIONS[kind]


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """Both files; an input scale is folded, b_dec is subtracted where `sae` does.

    Raises:
        LightsaeError: If SAELens has no such rule or normalisation.
    """
    require_rule(sae, NAME, TopK, BatchTopK, JumpReLU)
    kind, weights = _normalized_weights(sae)
    tensors = weights._asdict() | {"W_enc": weights.W_enc.mT}
    if isinstance(sae.selection, TopK):
        rule: dict[str, Any] = {"architecture": "topk", "k": sae.selection.k}
        rule["rescale_acts_by_decoder_norm"] = False
    elif (threshold := thresholds(sae)).any() or isinstance(sae.selection, BatchTopK):
        tensors["threshold"] = threshold
        rule = {"architecture": "jumprelu"}
    else:
        rule = {"architecture": "standard"}
    config = rule | {
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": str(weights.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": kind,
        "reshape_activations": original_config(sae, NAME).get("reshape_activations", "none"),
        "metadata": _metadata(sae),
    }
    content = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return {
        _CONFIG: json.dumps(config, indent=2).encode(),
        _TENSORS: serialize_tensors(content),
    }


def _normalized_weights(sae: SparseAutoencoder) -> tuple[str, Weights]:
    """SAELens' word for a normalisation, and the weights that go with it."""
    if sae.normalization == "layer_norm_unbiased":
        return "layer_norm", weights_of(sae)
    if sae.normalization == "unit_norm":
        return "constant_norm_rescale", to_mean_square_norm(weights_of(sae))
    require_no_row_statistics(sae, f"written as {NAME}")
    return "none", without_scale(sae)


def _metadata(sae: SparseAutoencoder) -> dict[str, Any]:
    """What SAELens keeps beside the function: of its own files as it was, and the rule's k."""
    names = {"model": "model_name", "hook": "hook_name", "layer": "hook_layer"}
    kept = original_config(sae, NAME, "metadata")
    details = original_config(sae, NAME, "metadata", "training_architecture_details")
    if not is_of_version_6(kept.get("sae_lens_version")):
        kept["sae_lens_version"] = _VERSION
    return {
        **{name: sae.provenance[key] for key, name in names.items() if key in sae.provenance},
        "training_architecture": type(sae.selection).__name__.lower(),
        **kept,
        "training_architecture_details": details | {"k": sae.selection.k},
    }
