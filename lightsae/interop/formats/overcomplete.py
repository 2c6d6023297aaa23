"""overcomplete: a module saved whole by torch.save, or its state dict beside `module.json`.

    z = select(ReLU(W x + b)),  x_hat = z D exp(multiplier),

without a b_dec. D is `dictionary._weights` [d_sae, d_in], each row of norm 1 unless the module was
built with another normalization; an evaluated module keeps the product. Read in overcomplete 0.3.0:
TopKSAE, BatchTopKSAE and JumpSAE on a linear encoder. Thresholds of JumpSAE are logarithms, and an
activation of just the threshold is kept. The library has no loader: a state dict is written, which
`TopKSAE(**arguments).load_state_dict(...)` takes.
"""

import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import checked, number, setting
from lightsae.interop.files.inert_pickle import Name, Record, read_inert
from lightsae.interop.files.safe_files import file_in, peek_json, read_json, read_torch
from lightsae.interop.files.shown_values import shown
from lightsae.interop.files.torch_modules import buffers_and_parameters, submodule, torch_file_names
from lightsae.interop.translation.folding import folded
from lightsae.interop.translation.provenance import origin
from lightsae.interop.translation.rules import require_rule, threshold_rule, thresholds
from lightsae.interop.translation.weights import Weights, autoencoder
from lightsae.sae import JumpReLU, Selection, SparseAutoencoder, TopK

NAME = "overcomplete"
FILES = "a .pt file of a TopKSAE, BatchTopKSAE or JumpSAE, or state_dict.pt and module.json"
TRANSCODERS = False

_CONFIG, _TENSORS = "module.json", "state_dict.pt"
_CLASSES = ("TopKSAE", "BatchTopKSAE", "JumpSAE")
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "encoder.final_block.0.weight": ("d_sae", "d_in"),
    "encoder.final_block.0.bias": ("d_sae",),
    "dictionary._weights": ("d_sae", "d_in"),
    "dictionary.multiplier": (),
}


def _over(D: Tensor, sizes: Tensor) -> Tensor:
    return D / sizes


_NORMALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": lambda D: _over(D, torch.linalg.vector_norm(D, dim=1, keepdim=True) + 1e-8),
    "max_l2": lambda D: _over(D, torch.linalg.vector_norm(D, dim=1).max()),
    "l1": lambda D: _over(D, D.abs().sum(dim=1, keepdim=True) + 1e-8),
    "max_l1": lambda D: _over(D, D.abs().sum(dim=1).max()),
    "identity": lambda D: D,
}


def recognizes(path: Path) -> bool:
    """Whether it is a file that names one of the classes, or the folder that is written."""
    if path.is_dir():
        return (path / _TENSORS).is_file() and "class" in peek_json(path / _CONFIG)
    return any(name.startswith("overcomplete.") for name in torch_file_names(path))


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder of a module's file, or of the folder that `files` fills.

    Raises:
        LightsaeError: If a file is malformed, or the module is another or has another encoder.
    """
    if path.is_dir():
        return _read_folder(path)
    module = read_inert(path)
    if not isinstance(module, Record):
        raise LightsaeError(
            f"{path} holds no module: a state dict says neither class nor k; save the module whole"
        )
    kind = module.named.rpartition(".")[2]
    state = module.state if isinstance(module.state, dict) else {}
    dictionary = submodule(module, "dictionary", path)
    tensors = buffers_and_parameters(module)
    fused = dictionary.state.get("_fused_dictionary")
    if isinstance(fused, Tensor) and dictionary.state.get("training") is False:
        tensors |= {"dictionary._weights": fused, "dictionary.multiplier": torch.zeros(())}
        normalization = "identity"
    else:
        named = dictionary.state.get("normalization")
        name = named.name if isinstance(named, Name) else shown(named)
        normalization = name.removeprefix("normalize_")
    config = {
        "class": kind,
        "top_k": state.get("top_k"),
        "dictionary_params": {"normalization": normalization},
    }
    _require_linear_encoder(submodule(module, "encoder", path), path)
    return _built(config, tensors, state.get("running_threshold"), (path, path))


def _require_linear_encoder(encoder: Record, path: Path) -> None:
    linear = encoder.named.endswith(".MLPEncoder")
    settings = {"norm_layer": "Identity", "output_activation": "ReLU"}
    found = {key: getattr(encoder.state.get(key), "name", None) for key in settings}
    if not linear or found != settings or (encoder.state.get("nb_blocks") or 0) > 1:
        raise LightsaeError(f"{path}: its encoder is no single linear layer with ReLU")


def _read_folder(path: Path) -> SparseAutoencoder:
    config_path, tensors_path = file_in(path, _CONFIG), file_in(path, _TENSORS)
    config, tensors = read_json(config_path), read_torch(tensors_path)
    arguments = setting(config, "arguments", dict, config_path)
    threshold = config.get("running_threshold")
    running = torch.tensor(threshold) if isinstance(threshold, float) else None
    return _built(
        arguments | {"class": config.get("class")}, tensors, running, (config_path, tensors_path)
    )


def _built(
    config: Mapping[str, Any], found: Any, running: Any, paths: tuple[Path, Path]
) -> SparseAutoencoder:
    """The autoencoder of a configuration, its tensors and the threshold of BatchTopK."""
    config_path, tensors_path = paths
    kind = setting(config, "class", str, config_path)
    if kind not in _CLASSES:
        known = ", ".join(_CLASSES)
        raise LightsaeError(f"{config_path}: its class is {shown(kind)}, expected one of {known}")
    shapes = _SHAPES | ({"thresholds": ("d_sae",)} if kind == "JumpSAE" else {})
    tensors = checked(found, tensors_path, shapes)
    W_enc, b_enc, D, multiplier = (tensors[name] for name in _SHAPES)
    parameters = setting(config, "dictionary_params", dict, config_path, {})
    normalization = setting(parameters, "normalization", str, config_path, "l2")
    if normalization not in _NORMALIZATIONS:
        raise LightsaeError(
            f"{config_path}: the dictionary's normalization is {shown(normalization)}, "
            f"expected one of {', '.join(_NORMALIZATIONS)}"
        )
    W_dec = _NORMALIZATIONS[normalization](D) * multiplier.exp()
    selection, threshold = _rule(kind, config, tensors, running, config_path)
    return autoencoder(
        Weights(W_enc, b_enc, W_dec, W_dec.new_zeros(W_dec.shape[1])),
        selection,
        threshold=threshold,
        apply_b_dec_to_input=False,
        provenance=origin(NAME, config),
    )


def _rule(
    kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], running: Any,
    config_path: Path,
) -> tuple[Selection, Tensor | None]:  # fmt: skip
    if kind == "TopKSAE":
        return TopK(setting(config, "top_k", int, config_path)), None
    if kind == "JumpSAE":
        return threshold_rule(_just_below(tensors["thresholds"].exp()))
    least = number(running)
    if least is None or least < 0:
        raise LightsaeError(
            f"{config_path}: its running_threshold was never learned: train it before saving"
        )
    # top_k counts over a batch of unknown size.
    d_sae = len(tensors["encoder.final_block.0.bias"])
    return threshold_rule(_just_below(torch.tensor(least)).expand(d_sae))


def _just_below(threshold: Tensor) -> Tensor:
    """The number above which everything is that is at least the threshold, in float32."""
    return torch.nextafter(threshold.detach().float(), torch.tensor(-math.inf))


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """A state dict and what builds the module that loads it.

    Raises:
        LightsaeError: If b_dec is not 0, or overcomplete has no such rule or normalisation.
    """
    require_rule(sae, NAME, TopK, JumpReLU)
    weights = folded(sae)
    if weights.b_dec.any():
        raise LightsaeError(f"{NAME} adds no b_dec, and that of this autoencoder is not 0")
    arguments: dict[str, Any] = {
        "input_shape": sae.d_in,
        "nb_concepts": sae.d_sae,
        "dictionary_params": {"normalization": "identity"},
    }
    values = (weights.W_enc, weights.b_enc, weights.W_dec, torch.zeros(()))
    tensors = dict(zip(_SHAPES, values, strict=True))
    if isinstance(sae.selection, TopK):
        kind = "TopKSAE"
        arguments["top_k"] = sae.selection.k
    else:
        kind = "JumpSAE"
        above = torch.nextafter(thresholds(sae), torch.tensor(math.inf))
        tensors["thresholds"] = above.log()
    content = io.BytesIO()
    torch.save({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, content)
    return {
        _CONFIG: json.dumps({"class": kind, "arguments": arguments}, indent=2).encode(),
        _TENSORS: content.getvalue(),
    }
