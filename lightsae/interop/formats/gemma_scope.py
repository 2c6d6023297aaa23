"""Gemma Scope: `params.npz` (1), or `config.json` and `params.safetensors` (2).

    h = x W_enc + b_enc,  f = ReLU(h) where h > threshold,  x_hat = f W_dec + b_dec

with W_enc [d_in, d_sae], W_dec [d_sae, d_in] and threshold [d_sae]; the names of 2 are lower-case.
Transcoders of 2 are of type transcoder and have another hook point out than in; with
affine_connection, x times affine_skip_connection [d_in, d_out] is added. Read in the tutorials of
both and in SAELens' loaders of them (arXiv 2408.05147).
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as serialize_tensors
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import checked, require_ones, setting
from lightsae.interop.files.safe_files import (
    file_in,
    peek_json,
    read_json,
    read_npz,
    read_safetensors,
)
from lightsae.interop.files.shown_values import shown
from lightsae.interop.translation.folding import folded, require_no_row_statistics, weights_of
from lightsae.interop.translation.provenance import origin, original_config
from lightsae.interop.translation.rules import require_rule, threshold_rule, thresholds
from lightsae.interop.translation.transcoders import folded_transcoder, transcoder
from lightsae.interop.translation.weights import Weights, autoencoder
from lightsae.sae import BatchTopK, JumpReLU, SparseAutoencoder, Transcoder

NAME = "gemma_scope"
FILES = "params.npz, or config.json and params.safetensors"
TRANSCODERS = True

_ARRAYS, _CONFIG, _TENSORS = "params.npz", "config.json", "params.safetensors"
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "w_enc": ("d_in", "d_sae"),
    "b_enc": ("d_sae",),
    "w_dec": ("d_sae", "d_in"),
    "b_dec": ("d_in",),
    "threshold": ("d_sae",),
}
_OF_TRANSCODERS: dict[str, tuple[int | str, ...]] = {
    "w_dec": ("d_sae", "d_out"),
    "b_dec": ("d_out",),
}
_SKIP = "affine_skip_connection"


def recognizes(path: Path) -> bool:
    """Whether there are the arrays of version 1, or both files of version 2."""
    if path.is_file() or (path / _ARRAYS).is_file():
        return {"W_enc", "W_dec", "threshold"} <= _names(path if path.is_file() else path / _ARRAYS)
    return (path / _TENSORS).is_file() and "hf_hook_point_in" in peek_json(path / _CONFIG)


def _names(path: Path) -> set[str]:
    """Names of the arrays of an .npz file; none where it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder or transcoder of a folder, or of params.npz.

    A transcoder of version 1 looks like an autoencoder: its output is then of another layer. Those
    of token embeddings take inputs divided by sqrt(d_in).

    Raises:
        LightsaeError: If it is malformed, reads several layers, or has a scaling factor.
    """
    config, named, source = _content(path)
    require_ones(named.pop("scaling_factor", None), "scaling_factor", source)
    transcodes, skip = _kind(config, path / _CONFIG)
    shapes = _SHAPES | (_OF_TRANSCODERS if transcodes else {})
    tensors = checked(named, source, shapes | ({_SKIP: ("d_in", "d_out")} if skip else {}))
    weights = Weights(
        tensors["w_enc"].mT, tensors["b_enc"], tensors["w_dec"], tensors["b_dec"]
    )  # fmt: skip
    selection, threshold = threshold_rule(tensors["threshold"], config.get("l0"))
    provenance = origin(
        NAME,
        config,
        model=config.get("model_name"),
        hook=config.get("hf_hook_point_in"),
        target_hook=config.get("hf_hook_point_out") if transcodes else None,
        version="2" if config else "1",
    )
    if transcodes:
        W_skip = tensors[_SKIP].mT if skip else None
        return transcoder(
            weights, selection, threshold=threshold, W_skip=W_skip, provenance=provenance
        )
    return autoencoder(
        weights,
        selection,
        threshold=threshold,
        apply_b_dec_to_input=False,
        provenance=provenance,
    )


def _content(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """Configuration, which version 1 has not, and tensors by the names of version 2."""
    if path.is_file() or (path / _ARRAYS).is_file():
        source = _arrays(path)
        return {}, {name.lower(): tensor for name, tensor in read_npz(source).items()}, source
    config_path = file_in(path, _CONFIG)
    config = read_json(config_path)
    _require_jump_relu(config, config_path)
    source = file_in(path, _TENSORS)
    return config, read_safetensors(source), source


def _arrays(path: Path) -> Path:
    return file_in(path, _ARRAYS) if path.is_dir() else path


def _require_jump_relu(config: Mapping[str, Any], path: Path) -> None:
    if config.get("architecture") != "jump_relu":
        raise LightsaeError(
            f"{path}: architecture is {shown(config.get('architecture'))}, expected 'jump_relu'"
        )
    if config.get("type", "sae") not in ("sae", "transcoder"):
        raise LightsaeError(
            f"{path}: type is {shown(config['type'])}, expected 'sae' or 'transcoder'"
        )


def _kind(config: Mapping[str, Any], path: Path) -> tuple[bool, bool]:
    """Whether it is a transcoder, and whether it has a skip."""
    skip = setting(config, "affine_connection", bool, path, False)
    place, target = config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
    return skip or config.get("type") == "transcoder" or target not in (None, place), skip


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """Both files of version 2; scales and what is subtracted from inputs are folded.

    Raises:
        LightsaeError: If it has no thresholds, or is normalised by row.
    """
    require_rule(sae, NAME, JumpReLU, BatchTopK)
    require_no_row_statistics(sae, f"written as {NAME}")
    tensors, kind = {}, "sae"
    if isinstance(sae, Transcoder):
        plain, kind = folded_transcoder(sae), "transcoder"
        weights = weights_of(plain)
        if plain.W_skip is not None:
            tensors[_SKIP] = plain.W_skip.detach().mT.contiguous()
    else:
        weights = folded(sae)
    config = _kept(sae) | {"architecture": "jump_relu", "width": sae.d_sae}
    config |= {"affine_connection": _SKIP in tensors, "type": kind}
    tensors |= {name.lower(): tensor for name, tensor in weights._asdict().items()}
    tensors |= {"w_enc": weights.W_enc.mT.contiguous(), "threshold": thresholds(sae)}
    return {_CONFIG: json.dumps(config, indent=2).encode(), _TENSORS: serialize_tensors(tensors)}


def _kept(sae: SparseAutoencoder) -> dict[str, Any]:
    """What Gemma Scope keeps beside the function: of its own files as it was."""
    known = sae.provenance
    config = {"model_name": known.get("model"), "hf_hook_point_in": known.get("hook")}
    transcodes = isinstance(sae, Transcoder)
    config["hf_hook_point_out"] = known.get("target_hook" if transcodes else "hook")
    original = original_config(sae, NAME)
    if not original and sae.selection.k < sae.d_sae:
        config["l0"] = sae.selection.k
    return config | original
