"""ViT-Prisma: `config.json` and a .pt file of tensors, or one .pt file with both.

    h = (x' - b_dec) W_enc + b_enc,  f = activation(h),  x_hat' = f W_dec + b_dec

with W_enc [d_in, d_sae] and W_dec [d_sae, d_in]. x' is x, x after layer norm by the unbiased
standard deviation plus 1e-5, or the row brought to norm sqrt(d_in); either is undone on x_hat'.
topk and then ReLU, or ReLU. The one file holds its configuration as an object of Prisma's, of which
the attributes are read and nothing is called. Read in src/vit_prisma/sae, May 2025.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import checked, setting
from lightsae.interop.files.inert_pickle import Name, Record, read_inert
from lightsae.interop.files.safe_files import file_in, files_in, peek_json, read_json
from lightsae.interop.files.shown_values import shown
from lightsae.interop.translation.folding import (
    require_no_row_statistics,
    shifted,
    weights_of,
    without_scale,
)
from lightsae.interop.translation.provenance import origin, original_config
from lightsae.interop.translation.rules import require_rule, threshold_rule, thresholds
from lightsae.interop.translation.unit_norm import from_mean_square_norm, to_mean_square_norm
from lightsae.interop.translation.weights import Weights, autoencoder
from lightsae.sae import JumpReLU, Normalization, Selection, SparseAutoencoder, TopK

NAME = "prisma"
FILES = "config.json with activation_fn_str and a .pt file, or a .pt file with both"
TRANSCODERS = False

_CONFIG, _TENSORS = "config.json", "weights.pt"
_SPARSITY = "_log_feature_sparsity.pt"
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "W_enc": ("d_in", "d_sae"),
    "b_enc": ("d_sae",),
    "W_dec": ("d_sae", "d_in"),
    "b_dec": ("d_in",),
}
# Prisma does nothing to inputs for a word that it does not know.
_NORMALIZATIONS: dict[str | None, Normalization] = {
    "layer_norm": "layer_norm_unbiased",
    "constant_norm_rescale": "unit_norm",
    "none": "none",
    "expected_average_only_in": "none",
    None: "none",
}


def recognizes(path: Path) -> bool:
    """Whether config.json beside the .pt file is of Prisma, or the file names Prisma's class."""
    try:
        source = _source(path)
    except LightsaeError:
        return False
    config = peek_json(source.parent / _CONFIG)
    return "activation_fn_str" in config or _names_prisma(source)


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder of a folder or a file.

    Raises:
        LightsaeError: If it is malformed, a transcoder, gated, of another activation than topk and
            relu, or the folder has several files of weights.
    """
    source = _source(path)
    config, found, config_path = _content(source)
    _require_plain(config, config_path)
    sizes = {"d_in": setting(config, "d_in", int, config_path)}
    tensors = checked(found, source, _SHAPES, sizes=sizes)
    weights = Weights(
        tensors["W_enc"].mT, tensors["b_enc"], tensors["W_dec"], tensors["b_dec"]
    )  # fmt: skip
    word = config.get("normalize_activations", "layer_norm")
    if not isinstance(word, str | None) or word not in _NORMALIZATIONS:
        known = ", ".join(filter(None, _NORMALIZATIONS))
        raise LightsaeError(
            f"{config_path}: normalize_activations is {shown(word)}, expected one of {known}"
        )
    normalization = _NORMALIZATIONS[word]
    if normalization == "unit_norm":
        weights = from_mean_square_norm(weights)
    selection, threshold = _rule(config, len(weights.b_enc), config_path)
    layer = config.get("hook_point_layer")
    place = config.get("layer_subtype")
    return autoencoder(
        weights,
        selection,
        threshold=threshold,
        normalization=normalization,
        provenance=origin(
            NAME,
            config,
            model=config.get("model_name"),
            hook=None if place is None else f"blocks.{layer}.{place}",
            layer=layer,
        ),
    )


def _source(path: Path) -> Path:
    """The file of weights: the one named, or the only one of a folder."""
    if path.is_file() and path.suffix == ".pt":
        return path
    found = [file for file in files_in(path, "*.pt") if not file.name.endswith(_SPARSITY)]
    if len(found) != 1:
        raise LightsaeError(f"{path} has {len(found)} .pt files of weights: name the one to read")
    return found[0]


def _names_prisma(source: Path) -> bool:
    try:
        with zipfile.ZipFile(source) as archive:
            programs = [part for part in archive.infolist() if part.filename.endswith("/data.pkl")]
            if len(programs) != 1 or programs[0].compress_type != zipfile.ZIP_STORED:
                return False
            return b"vit_prisma.sae" in archive.read(programs[0])
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _content(source: Path) -> tuple[dict[str, Any], Any, Path]:
    """Configuration, what the file holds of tensors, and the file that has the configuration."""
    found = read_inert(source)
    whole = isinstance(found, dict) and {"cfg", "state_dict"} <= found.keys()
    if not whole or (source.parent / _CONFIG).exists():
        beside = file_in(source.parent, _CONFIG)
        return read_json(beside), found["state_dict"] if whole else found, beside
    cfg = found["cfg"]
    if not isinstance(cfg, Record) or not isinstance(cfg.state, dict):
        raise LightsaeError(f"{source}: 'cfg' is no configuration of Prisma")
    return _attributes(cfg.state), found["state_dict"], source


def _attributes(state: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as JSON has them: what is no plain value becomes its name."""
    plain: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            plain[str(name)] = {str(key): _told(one) for key, one in value.items()}
        else:
            plain[str(name)] = _told(value)
    return plain


def _told(value: Any) -> Any:
    small = not isinstance(value, int) or value.bit_length() < 64
    if value is None or (isinstance(value, (int, float, str)) and small):
        return value
    if isinstance(value, (Record, Name)):
        return value.named if isinstance(value, Record) else str(value)
    return shown(value)


def _require_plain(config: Mapping[str, Any], path: Path) -> None:
    if config.get("is_transcoder"):
        raise LightsaeError(f"{path}: is_transcoder is set: a transcoder, not an autoencoder")
    architecture = setting(config, "architecture", str, path, "standard")
    if architecture == "gated":
        raise LightsaeError(f"{path}: architecture is 'gated', whose gate is a second encoder")
    if architecture != "standard":
        raise LightsaeError(f"{path}: architecture is {shown(architecture)}, expected 'standard'")


def _rule(config: Mapping[str, Any], d_sae: int, path: Path) -> tuple[Selection, Tensor | None]:
    kind = setting(config, "activation_fn_str", str, path)
    if kind == "relu":
        return threshold_rule(torch.zeros(d_sae))
    if kind != "topk":
        raise LightsaeError(f"{path}: activation_fn_str is {shown(kind)}, expected topk or relu")
    options = setting(config, "activation_fn_kwargs", dict, path, {})
    after = options.get("postact_fn", "ReLU")
    if str(after).rpartition(".")[2] != "ReLU":
        raise LightsaeError(f"{path}: postact_fn is {shown(after)}, expected ReLU")
    if "k" not in options:
        raise LightsaeError(f"{path}: 'activation_fn_kwargs' has no 'k', which Prisma needs too")
    return TopK(setting(options, "k", int, path)), None


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """Both files; an input scale is folded, subtracting b_dec unfolded.

    Raises:
        LightsaeError: If Prisma has no such rule or normalisation, or d_sae is no multiple of d_in.
    """
    require_rule(sae, NAME, TopK, JumpReLU)
    factor, rest = divmod(sae.d_sae, sae.d_in)
    if rest:
        raise LightsaeError(
            f"prisma has d_sae = {sae.d_sae} only as a multiple of d_in = {sae.d_in}: "
            "export it as saelens"
        )
    activation: dict[str, Any] = {"activation_fn_str": "relu", "activation_fn_kwargs": {}}
    if isinstance(sae.selection, TopK):
        options = {"k": sae.selection.k}
        activation = {"activation_fn_str": "topk", "activation_fn_kwargs": options}
    elif thresholds(sae).any():
        raise LightsaeError("prisma has ReLU without thresholds: export it as saelens")
    weights, normalization = _normalized(sae)
    if not sae.apply_b_dec_to_input:
        weights = shifted(weights, 1)
    config = _kept(sae) | activation
    config |= {"d_in": sae.d_in, "expansion_factor": factor, "normalize_activations": normalization}
    config |= {"architecture": "standard", "is_transcoder": False, "_device": "cpu"}
    config["_dtype"] = str(weights.W_enc.dtype).removeprefix("torch.")
    content = io.BytesIO()
    torch.save(weights._asdict() | {"W_enc": weights.W_enc.mT.contiguous()}, content)
    return {_CONFIG: json.dumps(config, indent=2).encode(), _TENSORS: content.getvalue()}


def _normalized(sae: SparseAutoencoder) -> tuple[Weights, str]:
    """Weights, and Prisma's word for the normalisation that goes with them."""
    if sae.normalization == "layer_norm_unbiased":
        return weights_of(sae), "layer_norm"
    if sae.normalization == "unit_norm":
        return to_mean_square_norm(weights_of(sae)), "constant_norm_rescale"
    require_no_row_statistics(sae, f"written as {NAME}")
    return without_scale(sae), "none"


def _kept(sae: SparseAutoencoder) -> dict[str, Any]:
    """What Prisma keeps beside the function: of its own files as it was."""
    known = sae.provenance
    if known.get("format") == NAME:
        return original_config(sae, NAME)
    names = {"model": "model_name", "layer": "hook_point_layer"}
    return {name: known[key] for key, name in names.items() if key in known}
