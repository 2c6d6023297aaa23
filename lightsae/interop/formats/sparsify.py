"""EleutherAI's sparsify: a folder for each hook point with `cfg.json` and `sae.safetensors`.

encoder.weight [d_sae, d_in], encoder.bias, W_dec [d_sae, d_in], b_dec; b_dec is subtracted from the
inputs, and of the rectified activations stay the k largest or, with groupmax, the largest of each
of k groups. With skip_connection there is W_skip [d_in, d_in], a map of the inputs as they are;
with transcode nothing is subtracted from them. Read in eai-sparsify 1.3.3.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import checked, setting
from lightsae.interop.files.safe_files import file_in, peek_json, read_json, read_safetensors
from lightsae.interop.files.shown_values import shown
from lightsae.interop.translation.folding import require_no_row_statistics, subtracting, weights_of
from lightsae.interop.translation.provenance import origin, original_config
from lightsae.interop.translation.rules import require_rule
from lightsae.interop.translation.transcoders import (
    folded_transcoder,
    less,
    require_place,
    transcoder,
)
from lightsae.interop.translation.weights import Weights, autoencoder, widened
from lightsae.sae import GroupMax, SparseAutoencoder, TopK, Transcoder

NAME = "sparsify"
FILES = "cfg.json and sae.safetensors"
TRANSCODERS = True

_CONFIG, _TENSORS = "cfg.json", "sae.safetensors"
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "encoder.weight": ("d_sae", "d_in"),
    "encoder.bias": ("d_sae",),
    "W_dec": ("d_sae", "d_in"),
    "b_dec": ("d_in",),
}
_SKIP: dict[str, tuple[int | str, ...]] = {"W_skip": ("d_in", "d_in")}
_RULES = {"topk": TopK, "groupmax": GroupMax}


def recognizes(path: Path) -> bool:
    """Whether both files are there and the configuration has a k."""
    return (path / _TENSORS).is_file() and {"d_in", "k"} <= set(peek_json(path / _CONFIG))


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder of a hook point's folder, or the transcoder, which also one with a skip is.

    Raises:
        LightsaeError: If a file is malformed.
    """
    config_path = file_in(path, _CONFIG)
    config = read_json(config_path)
    if config.get("signed"):
        raise LightsaeError(f"{config_path}: signed is set: only rectified latents are read")
    activation = setting(config, "activation", str, config_path, "topk")
    if activation not in _RULES:
        known = ", ".join(_RULES)
        raise LightsaeError(
            f"{config_path}: activation is {shown(activation)}, expected one of {known}"
        )
    d_in = setting(config, "d_in", int, config_path)
    d_sae = config.get("num_latents") or d_in * setting(
        config, "expansion_factor", int, config_path, 32
    )
    tensors_path = file_in(path, _TENSORS)
    skip, transcode = (
        setting(config, key, bool, config_path, False) for key in ("skip_connection", "transcode")
    )
    shapes = _SHAPES | (_SKIP if skip else {})
    tensors = checked(
        read_safetensors(tensors_path), tensors_path, shapes, sizes={"d_in": d_in, "d_sae": d_sae}
    )
    weights = Weights(*(tensors[name] for name in _SHAPES))
    rule = _RULES[activation](setting(config, "k", int, config_path))
    provenance = origin(NAME, config, hook=path.resolve().name)
    W_skip, b_in = tensors.get("W_skip"), None
    if W_skip is None and not transcode:
        return autoencoder(weights, rule, provenance=provenance)
    if W_skip is not None and not transcode:
        weights, b_in = widened(weights), weights.b_dec
        weights = weights._replace(b_dec=_of_centred_inputs(weights.b_dec, W_skip))
    return transcoder(weights, rule, provenance=provenance, W_skip=W_skip, b_in=b_in)


def _of_centred_inputs(b_dec: Tensor, W_skip: Tensor) -> Tensor:
    """What is added for b_dec where W_skip maps inputs less b_dec: b_dec + W_skip b_dec."""
    return less(b_dec, -W_skip, b_dec)


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """Both files; the folder's name is to be that of the hook point.

    Raises:
        LightsaeError: If sparsify has no such rule or normalisation, or d_out is not d_in.
    """
    require_rule(sae, NAME, TopK, GroupMax)
    if isinstance(sae, Transcoder):
        tensors, transcode = _tensors_of_transcoder(sae)
    else:
        tensors, transcode = _named(subtracting(sae, NAME)), False
    config = {
        "expansion_factor": max(sae.d_sae // sae.d_in, 1),
        "normalize_decoder": True,
        "multi_topk": False,
        **original_config(sae, NAME),
        "activation": type(sae.selection).__name__.lower(),
        "num_latents": sae.d_sae,
        "k": sae.selection.k,
        "d_in": sae.d_in,
        "skip_connection": "W_skip" in tensors,
        "transcode": transcode,
    }
    return {
        _CONFIG: json.dumps(config, indent=2).encode(),
        _TENSORS: serialize_tensors({name: t.contiguous() for name, t in tensors.items()}),
    }


def _tensors_of_transcoder(made: Transcoder) -> tuple[dict[str, Tensor], bool]:
    """Tensors by name, and whether sparsify is to subtract nothing."""
    require_place(made, NAME)
    require_no_row_statistics(made, f"written as {NAME}")
    subtracts = _subtracts_its_b_dec(made)
    plain = made if subtracts else folded_transcoder(made)
    tensors = _named(weights_of(plain))
    if subtracts:
        tensors["b_dec"] = made.b_in
    if plain.W_skip is not None:
        tensors["W_skip"] = plain.W_skip.detach()
    return tensors, not subtracts


def _named(weights: Weights) -> dict[str, Tensor]:
    return dict(zip(_SHAPES, weights, strict=True))


def _subtracts_its_b_dec(made: Transcoder) -> bool:
    """Whether it is what `read` makes of a skip without transcode."""
    if made.W_skip is None or not made.b_in.any() or made.scale != 1 or made.target_scale != 1:
        return False
    return torch.equal(made.b_dec, _of_centred_inputs(made.b_in, made.W_skip))
