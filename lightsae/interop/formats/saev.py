"""saev: `sae.pt`, a line of JSON and then what torch.save writes.

    h = x W_enc + b_enc,  f = activation(h),  x_hat = f W_dec + b_dec

with W_enc [d_in, d_sae] and W_dec [d_sae, d_in]. Relu, TopK and BatchTopK, whose threshold is a
running mean; TopK keeps the k largest h even where they are negative. Files of schema 1 and of
none are of a saev whose h was of x - b_dec, which its present loader does not subtract. Read in
saev's src/saev/nn/modeling.py, April 2025 to March 2026.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import checked, setting
from lightsae.interop.files.safe_files import MAX_HEADER_BYTES, file_in, parse_json, read_torch
from lightsae.interop.files.shown_values import shown
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

NAME = "saev"
FILES = "sae.pt that begins with a line of JSON"
TRANSCODERS = False

_SCHEMAS = (None, 1, 2, 3, 4, 5)
_SUBTRACTING = (None, 1)
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "W_enc": ("d_in", "d_sae"),
    "b_enc": ("d_sae",),
    "W_dec": ("d_sae", "d_in"),
    "b_dec": ("d_in",),
}
_THRESHOLD = "activation.threshold"
_NEGATIVE = (
    "Where a row has fewer than k positive activations, saev's TopK keeps negative ones too; "
    "here they are 0: nothing differs on rows with k positive ones."
)
_SUBTRACTED = (
    "Its schema is of a saev that subtracted b_dec from inputs, as is done here; "
    "saev's present loader does not, and computes another function than was trained."
)


def recognizes(path: Path) -> bool:
    """Whether the file, or sae.pt of the folder, begins with a configuration of saev."""
    try:
        header, _ = _header(_file(path))
    except (LightsaeError, OSError):
        return False
    return "d_vit" in header or {"schema", "cfg"} <= header.keys()


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder of a file of schema 1 to 5, or of none.

    A TopK differs from saev's on rows with fewer than k positive h: saev keeps negative ones.

    Raises:
        LightsaeError: If it is malformed, of another schema or activation.
    """
    file = _file(path)
    header, size = _header(file)
    schema = header.get("schema")
    if schema not in _SCHEMAS or isinstance(schema, bool):
        raise LightsaeError(f"{file}: schema is {shown(schema)}, expected 1 to 5 or none")
    config = header if schema is None else setting(header, "cfg", dict, file)
    kind, params = _activation(header, config, file)
    shapes = _SHAPES | ({_THRESHOLD: ()} if kind == "BatchTopK" else {})
    found = read_torch(file, skipped_bytes=size)
    tensors = checked(found, file, shapes, optional=(_THRESHOLD,), sizes=_sizes(config, file))
    selection, threshold = _rule(kind, params, tensors, file)
    notes = [_SUBTRACTED] if schema in _SUBTRACTING else []
    notes += [_NEGATIVE] if kind == "TopK" else []
    notes += [NO_THRESHOLD] if threshold is UNKNOWN_THRESHOLD else []
    weights = Weights(
        tensors["W_enc"].mT, tensors["b_enc"], tensors["W_dec"], tensors["b_dec"]
    )  # fmt: skip
    return autoencoder(
        weights,
        selection,
        threshold=threshold,
        apply_b_dec_to_input=schema in _SUBTRACTING,
        provenance=origin(NAME, header, version=_text(header.get("lib")), notes=notes),
    )


def _file(path: Path) -> Path:
    return file_in(path, "sae.pt") if path.is_dir() else path


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The JSON of the first line and the line's length."""
    try:
        with file.open("rb") as opened:
            line = opened.readline(MAX_HEADER_BYTES)
    except OSError as error:
        raise LightsaeError(f"{file} cannot be read: {error.strerror}") from error
    if not (line.startswith(b"{") and line.endswith(b"\n")):
        raise LightsaeError(f"{file} does not begin with a line of JSON, as files of saev do")
    return parse_json(line, file), len(line)


def _activation(
    header: Mapping[str, Any], config: Mapping[str, Any], file: Path
) -> tuple[str, Mapping[str, Any]]:
    """Class of the activation and its parameters, wherever the schema has them."""
    if header.get("schema") is None:
        return "Relu", {}
    if header["schema"] == 1 and header.get("cls") in ("Relu", "TopK", "BatchTopK"):
        return str(header["cls"]), config
    activation = setting(config, "activation", dict, file)
    kind = setting(activation, "cls", str, file)
    return kind, setting(activation, "params", dict, file)


def _sizes(config: Mapping[str, Any], file: Path) -> dict[str, int]:
    d_in = setting(config, "d_vit" if "d_vit" in config else "d_model", int, file)
    if "d_sae" in config:
        return {"d_in": d_in, "d_sae": setting(config, "d_sae", int, file)}
    return {"d_in": d_in, "d_sae": d_in * setting(config, "exp_factor", int, file)}


def _rule(
    kind: str, params: Mapping[str, Any], tensors: Mapping[str, Tensor], file: Path
) -> tuple[Selection, Tensor | None]:
    if kind == "Relu":
        return threshold_rule(torch.zeros_like(tensors["b_enc"]))
    if kind not in ("TopK", "BatchTopK"):
        raise LightsaeError(f"{file}: activation {shown(kind)} is none of Relu, TopK and BatchTopK")
    d_sae = len(tensors["b_enc"])
    k = min(setting(params, "top_k", int, file, 32), d_sae)
    if kind == "TopK":
        return TopK(k), None
    if _THRESHOLD not in tensors:
        return BatchTopK(k), UNKNOWN_THRESHOLD
    return threshold_rule(tensors[_THRESHOLD].expand(d_sae), k, batch=True)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """sae.pt of schema 5; an input scale and subtracting b_dec are folded.

    Raises:
        LightsaeError: If saev has no such rule or normalisation.
    """
    require_rule(sae, NAME, TopK, BatchTopK, JumpReLU)
    require_no_row_statistics(sae, f"written as {NAME}")
    weights = folded(sae)
    state = weights._asdict() | {"W_enc": weights.W_enc.mT.contiguous()}
    activation: dict[str, Any] = {"cls": "Relu", "params": {"key": "relu"}}
    if isinstance(sae.selection, TopK):
        activation = {"cls": "TopK", "params": {"key": "top-k", "top_k": sae.selection.k}}
    elif isinstance(sae.selection, BatchTopK):
        activation = {
            "cls": "BatchTopK",
            "params": {"key": "batch-top-k", "top_k": sae.selection.k},
        }
        state[_THRESHOLD] = thresholds(sae)[0]
    elif thresholds(sae).any():
        raise LightsaeError("saev has no threshold for each latent: export it as saelens")
    header = _kept(sae) | {"schema": 5}
    header["cfg"] = header["cfg"] | {
        "d_model": sae.d_in,
        "d_sae": sae.d_sae,
        "activation": activation,
    }
    content = io.BytesIO()
    content.write(json.dumps(header).encode() + b"\n")
    torch.save(state, content)
    return {"sae.pt": content.getvalue()}


def _kept(sae: SparseAutoencoder) -> dict[str, Any]:
    """What saev keeps beside the function: of its own files as it was."""
    known = original_config(sae, NAME)
    if known.get("schema") == 5 and isinstance(known.get("cfg"), dict):
        return known
    norms = torch.linalg.vector_norm(sae.W_dec, dim=1)
    unit = bool(torch.allclose(norms, torch.ones_like(norms)))
    return {"cfg": {"normalize_w_dec": unit}, "commit": "unknown", "lib": "unknown"}
