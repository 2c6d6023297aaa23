"""EleutherAI's sparsify: a folder for each hook point with `cfg.json` and `sae.safetensors`.

encoder.weight [d_sae, d_in], encoder.bias, W_dec [d_sae, d_in], b_dec; b_dec is subtracted from the
inputs, and of the rectified activations stay the k largest or, with groupmax, the largest of each
of k groups. Read in eai-sparsify 1.3.3.
"""

import json
from pathlib import Path

from safetensors.torch import save as serialize_tensors

from lightsae.errors import LightsaeError
from lightsae.interop.file_checks import checked, setting
from lightsae.interop.folding import subtracting
from lightsae.interop.provenance import origin, original_config
from lightsae.interop.rules import require_rule
from lightsae.interop.safe_files import file_in, peek_json, read_json, read_safetensors
from lightsae.interop.shown_values import shown
from lightsae.interop.weights import Weights, autoencoder
from lightsae.sae import GroupMax, SparseAutoencoder, TopK

NAME = "sparsify"
FILES = "cfg.json and sae.safetensors"

_CONFIG, _TENSORS = "cfg.json", "sae.safetensors"
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "encoder.weight": ("d_sae", "d_in"),
    "encoder.bias": ("d_sae",),
    "W_dec": ("d_sae", "d_in"),
    "b_dec": ("d_in",),
}
_RULES = {"topk": TopK, "groupmax": GroupMax}


def recognizes(path: Path) -> bool:
    """Whether both files are there and the configuration has a k."""
    return (path / _TENSORS).is_file() and {"d_in", "k"} <= set(peek_json(path / _CONFIG))


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder of a hook point's folder.

    Raises:
        LightsaeError: If a file is malformed, or it is a transcoder.
    """
    config_path = file_in(path, _CONFIG)
    config = read_json(config_path)
    for key in ("transcode", "skip_connection", "signed"):
        if config.get(key):
            raise LightsaeError(
                f"{config_path}: {key} is set: only autoencoders with rectified latents are read"
            )
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
    tensors = checked(
        read_safetensors(tensors_path), tensors_path, _SHAPES, sizes={"d_in": d_in, "d_sae": d_sae}
    )
    return autoencoder(
        Weights(*(tensors[name] for name in _SHAPES)),
        _RULES[activation](setting(config, "k", int, config_path)),
        provenance=origin(NAME, config, hook=path.resolve().name),
    )


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """Both files; the folder's name is to be that of the hook point.

    Raises:
        LightsaeError: If sparsify has no such rule or normalisation.
    """
    require_rule(sae, NAME, TopK, GroupMax)
    weights = subtracting(sae, NAME)
    config = {
        "expansion_factor": max(sae.d_sae // sae.d_in, 1),
        "normalize_decoder": True,
        "multi_topk": False,
        **original_config(sae, NAME),
        "activation": type(sae.selection).__name__.lower(),
        "num_latents": sae.d_sae,
        "k": sae.selection.k,
        "d_in": sae.d_in,
        "skip_connection": False,
        "transcode": False,
    }
    tensors = {name: t.contiguous() for name, t in zip(_SHAPES, weights, strict=True)}
    return {
        _CONFIG: json.dumps(config, indent=2).encode(),
        _TENSORS: serialize_tensors(tensors),
    }
