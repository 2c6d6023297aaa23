"""dictionary_learning: `ae.pt`, a state dict, and `config.json`, which names its class.

Read in dictionary-learning 0.1.0: AutoEncoderTopK, BatchTopKSAE, MatryoshkaBatchTopKSAE, which
encode by their threshold where they have one for the whole batch, AutoEncoder and AutoEncoderNew,
which only rectify, and JumpReluAutoEncoder. A norm of the data is folded into the biases that are
saved.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.interop.files.file_checks import checked, number, setting
from lightsae.interop.files.safe_files import file_in, peek_json, read_json, read_torch
from lightsae.interop.files.shown_values import shown
from lightsae.interop.translation.folding import folded, subtracting
from lightsae.interop.translation.provenance import origin, original_config
from lightsae.interop.translation.rules import require_rule, threshold_rule, thresholds
from lightsae.interop.translation.weights import Weights, autoencoder, with_unit_rows
from lightsae.sae import BatchTopK, JumpReLU, Selection, SparseAutoencoder, TopK

NAME = "dictionary_learning"
FILES = "ae.pt and config.json with trainer.dict_class"
TRANSCODERS = False

_CONFIG, _TENSORS = "config.json", "ae.pt"
_BUFFERS = ("k", "threshold", "group_sizes")


class _Layout(NamedTuple):
    """Names of the four weights of a class, of which matrices lie as [d_in, d_sae]."""

    W_enc: str
    b_enc: str
    W_dec: str
    b_dec: str
    transposed: tuple[str, ...]
    subtracts: bool = True

    def shapes(self) -> dict[str, tuple[int | str, ...]]:
        rows, columns = ("d_sae", "d_in"), ("d_in", "d_sae")
        turned = {name: columns if name in self.transposed else rows for name in self[:4:2]}
        return {**turned, self.b_enc: ("d_sae",), self.b_dec: ("d_in",)}

    def weights(self, tensors: Mapping[str, Tensor]) -> Weights:
        turned = {name: tensors[name].mT for name in self.transposed}
        return Weights(*({**tensors, **turned}[name] for name in self[:4]))

    def tensors(self, weights: Weights) -> dict[str, Tensor]:
        named = dict(zip(self[:4], weights, strict=True))
        return {
            name: (tensor.mT if name in self.transposed else tensor).contiguous()
            for name, tensor in named.items()
        }


_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_FLAT = ("W_enc", "b_enc", "W_dec", "b_dec")
_LAYOUTS = {
    "AutoEncoderTopK": _Layout(*_LINEAR, "b_dec", ("decoder.weight",)),
    "BatchTopKSAE": _Layout(*_LINEAR, "b_dec", ("decoder.weight",)),
    "MatryoshkaBatchTopKSAE": _Layout(*_FLAT, ("W_enc",)),
    "AutoEncoder": _Layout(*_LINEAR, "bias", ("decoder.weight",)),
    "AutoEncoderNew": _Layout(*_LINEAR, "decoder.bias", ("decoder.weight",), subtracts=False),
    "JumpReluAutoEncoder": _Layout(*_FLAT, ("W_enc",), subtracts=False),
}
_TRAINERS = {
    "AutoEncoderTopK": "TopKTrainer",
    "BatchTopKSAE": "BatchTopKTrainer",
    "AutoEncoder": "StandardTrainer",
    "JumpReluAutoEncoder": "JumpReluTrainer",
}


def recognizes(path: Path) -> bool:
    """Whether there is an ae.pt, and a configuration that names a class."""
    folder, name = _place(path)
    trainer = peek_json(folder / _CONFIG).get("trainer")
    return (folder / name).is_file() and isinstance(trainer, dict) and "dict_class" in trainer


def _place(path: Path) -> tuple[Path, str]:
    """The folder of the configuration, and the file of tensors within it."""
    if path.is_dir():
        return path, _TENSORS
    if path.parent.name == "checkpoints":
        return path.parent.parent, f"checkpoints/{path.name}"
    return path.parent, path.name


def read(path: Path) -> SparseAutoencoder:
    """The autoencoder of a trainer's folder, of its ae.pt, or of a file of its checkpoints.

    Raises:
        LightsaeError: If a file is malformed, a threshold was never learned, or the class is none
            of those above.
    """
    folder, name = _place(path)
    config_path = file_in(folder, _CONFIG)
    config = read_json(config_path)
    trainer = setting(config, "trainer", dict, config_path)
    kind = setting(trainer, "dict_class", str, config_path)
    if kind not in _LAYOUTS:
        known = ", ".join(_LAYOUTS)
        raise LightsaeError(f"{config_path}: dict_class is {shown(kind)}, expected one of {known}")
    tensors_path = file_in(folder, name)
    found = read_torch(tensors_path)
    if isinstance(found, dict) and "ae" in found:
        raise LightsaeError(
            f"{tensors_path} is a backup of a run that goes on: take what the run saves at its end"
        )
    layout = _LAYOUTS[kind]
    jump = {"threshold": ("d_sae",)} if kind == "JumpReluAutoEncoder" else {}
    tensors = checked(found, tensors_path, layout.shapes() | jump, ignored=_BUFFERS)
    weights = layout.weights(tensors)
    if kind == "AutoEncoder" and not _has_unit_rows(weights.W_dec):  # as its loader does
        weights = with_unit_rows(weights)
    selection, threshold = _rule(kind, trainer, found, (config_path, tensors_path))
    return autoencoder(
        weights,
        selection,
        threshold=threshold,
        apply_b_dec_to_input=layout.subtracts,
        provenance=origin(
            NAME,
            config,
            model=trainer.get("lm_name"),
            hook=trainer.get("submodule_name"),
            layer=trainer.get("layer"),
        ),
    )


def _rule(
    kind: str, trainer: Mapping[str, Any], found: Mapping[str, Any], paths: tuple[Path, Path]
) -> tuple[Selection, Tensor | None]:
    """The rule of a class; a k of its tensors is that of its configuration."""
    config_path, tensors_path = paths
    if kind == "JumpReluAutoEncoder":
        return threshold_rule(found["threshold"], trainer.get("target_l0"))
    if kind in ("AutoEncoder", "AutoEncoderNew"):
        return threshold_rule(torch.zeros(len(found["encoder.bias"])))
    k = setting(trainer, "k", int, config_path)
    if "k" in found and number(found["k"]) != k:
        raise LightsaeError(
            f"{tensors_path}: tensor 'k' is {_told(found['k'])}, {_CONFIG} has k = {k}"
        )
    if kind == "AutoEncoderTopK":
        return TopK(k), None
    least = number(found.get("threshold"))
    if least is None or least < 0:
        raise LightsaeError(
            f"{tensors_path}: its threshold was never learned ({_told(found.get('threshold'))}): "
            "train it beyond threshold_start_step"
        )
    return BatchTopK(k), torch.tensor(least)


def _told(value: Any) -> str:
    found = number(value)
    return shown(value) if found is None else f"{found:g}"


def files(sae: SparseAutoencoder) -> dict[str, bytes]:
    """Both files. Of Matryoshka's groups nothing is left: a BatchTopKSAE is the same function.

    Raises:
        LightsaeError: If dictionary_learning has no such rule or normalisation.
    """
    require_rule(sae, NAME, TopK, BatchTopK, JumpReLU)
    kind = _class_for(sae)
    layout = _LAYOUTS[kind]
    tensors = layout.tensors(subtracting(sae, NAME) if layout.subtracts else folded(sae))
    names = {"layer": "layer", "lm_name": "model", "submodule_name": "hook"}
    trainer: dict[str, Any] = {
        **{name: sae.provenance.get(key) for name, key in names.items()},
        **original_config(sae, NAME, "trainer"),
        "trainer_class": _TRAINERS[kind],
        "dict_class": kind,
        "activation_dim": sae.d_in,
        "dict_size": sae.d_sae,
    }
    if kind == "JumpReluAutoEncoder":
        trainer["target_l0"] = sae.selection.k
        tensors["threshold"] = thresholds(sae)
    elif kind != "AutoEncoder":
        trainer["k"] = sae.selection.k
        batch = isinstance(sae.selection, BatchTopK)
        tensors["k"] = torch.tensor(sae.selection.k, dtype=torch.int32)
        tensors["threshold"] = thresholds(sae)[0].clone() if batch else torch.tensor(-1.0)
    content = io.BytesIO()
    torch.save(tensors, content)
    return {
        _CONFIG: json.dumps(original_config(sae, NAME) | {"trainer": trainer}, indent=4).encode(),
        _TENSORS: content.getvalue(),
    }


def _class_for(sae: SparseAutoencoder) -> str:
    if isinstance(sae.selection, TopK):
        return "AutoEncoderTopK"
    if isinstance(sae.selection, BatchTopK):
        return "BatchTopKSAE"
    rectified = sae.apply_b_dec_to_input and not thresholds(sae).any()
    # The loader of AutoEncoder changes the codes of others.
    if rectified and _has_unit_rows(sae.W_dec * sae.scale):
        return "AutoEncoder"
    return "JumpReluAutoEncoder"


def _has_unit_rows(W_dec: Tensor) -> bool:
    norms = torch.linalg.vector_norm(W_dec, dim=1)
    return torch.allclose(norms, torch.ones_like(norms))
