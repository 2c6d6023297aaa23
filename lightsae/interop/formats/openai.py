"""openai/sparse_autoencoder: one .pt file with a dictionary of tensors and settings.

    h = (x' - pre_bias) W_enc^T + latent_bias,  f = activation(h),  x_hat' = f W_dec + pre_bias

with encoder.weight [d_sae, d_in] and decoder.weight [d_in, d_sae]. With TopK, x' is x after layer
norm by the unbiased standard deviation plus 1e-5, which is undone on x_hat'; with ReLU, x' is x.
Read in sparse_autoencoder/model.py, June 2024.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import checked, setting
from lightsae.interop.files.safe_files import files_in, read_torch
from lightsae.interop.files.shown_values import shown
from lightsae.interop.translation.folding import (
    require_no_row_statistics,
    shifted,
    weights_of,
    without_scale,
)
from lightsae.interop.translation.provenance import origin
from lightsae.interop.translation.rules import require_rule, threshold_rule, thresholds
from lightsae.interop.translation.weights import Weights, autoencoder
from lightsae.sae import JumpReLU, SparseAutoencoder, TopK

NAME = "openai"
FILES = "a .pt file with encoder.weight, decoder.weight, pre_bias and latent_bias"
TRANSCODERS = False

_SHAPES: dict[str, tuple[int | str, ...]] = {
    "encoder.weight": ("d_sae", "d_in"),
    "latent_bias": ("d_sae",),
    "decoder.weight": ("d_in", "d_sae"),
    "pre_bias": ("d_in",),
}
_STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
# A module with a TopK writes its settings a second time.
_SETTINGS = ("activation", "activation_state_dict", "activation.k", "activation.postact_fn")


def recognizes(path: Path) -> bool:
    """Whether the file, or the only .pt file of the folder, has the four tensors."""
    try:
        found = read_torch(_file(path))
    except (LightsaeError, OSError):
        return False
    return isinstance(found, Mapping) and found.keys() >= _SHAPES.keys()


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder of a file.

    Raises:
        LightsaeError: If it is malformed, or its activation is neither TopK followed by ReLU nor
            ReLU.
    """
    file = _file(path)
    found = read_torch(file)
    tensors = checked(found, file, _SHAPES, ignored=(*_STATISTICS, *_SETTINGS))
    weights = Weights(
        tensors["encoder.weight"],
        tensors["latent_bias"],
        tensors["decoder.weight"].mT,
        tensors["pre_bias"],
    )
    kind = setting(found, "activation", str, file, "ReLU")
    config: dict[str, Any] = {"activation": kind}
    if kind == "TopK":
        config["activation_state_dict"] = _top_k(found, file)
        rule = TopK(config["activation_state_dict"]["k"])
        provenance = origin(NAME, config)
        return autoencoder(
            weights, rule, normalization="layer_norm_unbiased", provenance=provenance
        )
    if kind != "ReLU":
        raise LightsaeError(f"{file}: activation is {shown(kind)}, expected TopK or ReLU")
    selection, threshold = threshold_rule(torch.zeros_like(weights.b_enc))
    return autoencoder(weights, selection, threshold=threshold, provenance=origin(NAME, config))


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = files_in(path, "*.pt")
    if len(found) != 1:
        raise LightsaeError(f"{path} has {len(found)} .pt files: name the one to read")
    return found[0]


def _top_k(found: Mapping[str, Any], file: Path) -> dict[str, Any]:
    state = found.get("activation_state_dict")
    if not isinstance(state, Mapping):
        raise LightsaeError(f"{file}: activation_state_dict is {shown(state)}, expected a mapping")
    after = setting(state, "postact_fn", str, file)
    if after != "ReLU":
        raise LightsaeError(
            f"{file}: postact_fn is {shown(after)}, which keeps negative activations: expected ReLU"
        )
    return {"k": setting(state, "k", int, file), "postact_fn": after}


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """autoencoder.pt; an input scale is folded, subtracting b_dec unfolded.

    Raises:
        LightsaeError: If it is neither a TopK after layer norm nor a ReLU without normalisation by
            row, the only two that openai/sparse_autoencoder knows.
    """
    require_rule(sae, NAME, TopK, JumpReLU)
    weights = _top_k_weights(sae) if isinstance(sae.selection, TopK) else _relu_weights(sae)
    if not sae.apply_b_dec_to_input:
        weights = shifted(weights, 1)
    never_fired = torch.zeros(sae.d_sae, dtype=torch.long)
    state: dict[str, Any] = {
        "pre_bias": weights.b_dec,
        "latent_bias": weights.b_enc,
        "stats_last_nonzero": never_fired,
        "latents_activation_frequency": torch.ones(sae.d_sae),
        "latents_mean_square": torch.zeros(sae.d_sae),
        "encoder.weight": weights.W_enc,
        "decoder.weight": weights.W_dec.mT.contiguous(),
        "activation": "ReLU",
        "activation_state_dict": {},
    }
    if isinstance(sae.selection, TopK):
        settings = {"k": sae.selection.k, "postact_fn": "ReLU"}
        state |= {"activation": "TopK", "activation_state_dict": settings}
    content = io.BytesIO()
    torch.save(state, content)
    return {"autoencoder.pt": content.getvalue()}


def _top_k_weights(sae: SparseAutoencoder) -> Weights:
    if sae.normalization != "layer_norm_unbiased":
        raise LightsaeError(
            f"openai has layer_norm_unbiased before every TopK, not {sae.normalization}: "
            "export it as saelens"
        )
    return weights_of(sae)


def _relu_weights(sae: SparseAutoencoder) -> Weights:
    require_no_row_statistics(sae, f"written as {NAME} without TopK")
    if thresholds(sae).any():
        raise LightsaeError("openai has ReLU without thresholds: export it as saelens")
    return without_scale(sae)
