"""Settings that a checkpoint saves to rebuild its module."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightsae.errors import LightsaeError
from lightsae.module_names import plain_name
from lightsae.sae import (
    AuxK,
    L1L2Ratio,
    MonosemanticityLoss,
    OffSupportL1,
    Reconstruction,
    Regularizer,
    Selection,
    SparseAutoencoder,
    Transcoder,
    TranscoderOptions,
    VocabularyAnchor,
)
from lightsae.sae.losses.reconstruction import RECONSTRUCTIONS
from lightsae.sae.losses.vocabulary_anchor import Anchored
from lightsae.sae.selection import SELECTIONS

_PREFIX = "sae."
# Penalties that checkpoints can name.
REGULARIZERS: dict[str, type[Regularizer]] = {
    "OffSupportL1": OffSupportL1,
    "L1L2Ratio": L1L2Ratio,
    "MonosemanticityLoss": MonosemanticityLoss,
}
_LOSSES = ("regularizer", "aux_k")
_BUILT = (*_LOSSES, "reconstruction", "transcoder", "anchor")


def described_selection(selection: Selection) -> dict[str, Any]:
    """A selection rule by name and settings; a class of the user's by its path.

    Example:
        >>> from lightsae.sae import TopK
        >>> described_selection(TopK(3))
        {'rule': 'TopK', 'k': 3}
    """
    return {"rule": _class_name(selection, SELECTIONS), **plain(selection.settings())}


def described_losses(
    regularizer: Regularizer | None,
    aux_k: AuxK | None,
    reconstruction: Reconstruction | None = None,
) -> dict[str, Any]:
    """The losses by name and settings; a class of the user's by its path.

    Example:
        >>> from lightsae.sae import OffSupportL1
        >>> described_losses(OffSupportL1(0.1), None)
        {'regularizer': {'class': 'OffSupportL1', 'weight': 0.1, 'weight_warmup': 0, \
'batch_active_only': True}, 'aux_k': None, 'reconstruction': None}
    """
    described: dict[str, Any] | None = None
    if regularizer is not None:
        name = _class_name(regularizer, REGULARIZERS)
        described = {"class": name, **(plain(vars(regularizer)) if name in REGULARIZERS else {})}
    nested: dict[str, Any] | None = None
    if reconstruction is not None:
        name = _class_name(reconstruction, RECONSTRUCTIONS)
        nested = {"class": name, **plain(reconstruction.settings())}
    return {
        "regularizer": described,
        "aux_k": None if aux_k is None else plain(asdict(aux_k)),
        "reconstruction": nested,
    }


def described_anchor(anchor: VocabularyAnchor | None) -> dict[str, Any] | None:
    """Settings of an anchor and the digest of its vocabulary, which is no part of a checkpoint.

    Example:
        >>> described_anchor(VocabularyAnchor(0.1, "words.safetensors"))["vocabulary"]
        'words.safetensors'
    """
    return None if anchor is None else {**plain(anchor.settings()), "digest": anchor.digest}


def plain_anchored(found: Anchored | None) -> list[float] | None:
    """What an anchor was when it was last computed, as numbers that are logged again on resume."""
    return None if found is None else [float(each) for each in found]


def anchored_of(numbers: list[float] | None) -> Anchored | None:
    """The same from a checkpoint.

    Example:
        >>> plain_anchored(anchored_of([0.25, 0.5]))
        [0.25, 0.5]
    """
    if numbers is None:
        return None
    return Anchored(*(torch.tensor(each, dtype=torch.float64) for each in numbers))


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the numbers of numpy and torch as Python's, which every reader accepts.

    Example:
        >>> plain({"weight": torch.tensor(0.5)})
        {'weight': 0.5}

    Raises:
        LightsaeError: If one is a tensor or an array of several.
    """
    return {name: _number(name, value) for name, value in settings.items()}


def _number(name: str, value: Any) -> Any:
    if not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except (RuntimeError, ValueError) as error:
        shape = list(getattr(value, "shape", ()))
        raise LightsaeError(
            f"setting {name!r} has shape {shape}, expected a single number, or a list"
        ) from error


def _class_name(thing: object, known: Mapping[str, Any]) -> str:
    """The name of a class of this package; the path of another, whatever its name."""
    kind = type(thing)
    ours = known.get(kind.__name__) is kind
    return kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}"


def module_settings(
    content: Mapping[str, Any], path: Path, given: Mapping[str, Any], accepted: Collection[str]
) -> dict[str, Any]:
    """Arguments that build the module of a checkpoint.

    What an older checkpoint does not say is taken from `config.yaml` of its run folder. Nothing
    else tells its losses; without them it is built without, and says so.

    Args:
        content: What `read_checkpoint` returned.
        path: The file.
        given: Arguments that stand above those that were saved.
        accepted: Names of the arguments that the module takes.

    Raises:
        LightsaeError: If it holds no autoencoder, does not say its selection rule, or names a class
            that is not of this package and is not given.
    """
    settings = _saved_settings(content, path)
    d_sae, d_in = _weights(content, path).shape
    saved = settings.get("hyper_parameters")
    known = dict(saved) if isinstance(saved, dict) else {}
    known |= {
        "d_sae": d_sae,
        "d_in": d_in,
        "normalization": settings.get("normalization", "variance"),
    }
    if "selection" not in given:
        known["selection"] = _selection(settings, path)
    missing = [name for name in _LOSSES if name not in settings and name not in given]
    if missing:
        names = " and ".join(missing)
        rank_zero_warn(f"{path}: does not say its {names}; give them, or the module has none")
    builders = (_regularizer, _aux_k, _reconstruction, _transcoder, _anchor)
    for name, build in zip(_BUILT, builders, strict=True):
        if name not in given:
            known[name] = build(settings.get(name), path)
    return {name: known[name] for name in known if name in accepted} | dict(given)


def saved_autoencoder(content: Mapping[str, Any], path: Path) -> SparseAutoencoder:
    """The autoencoder of a checkpoint, in the dtype it was trained in.

    Args:
        content: What `read_checkpoint` returned.
        path: The file.

    Raises:
        LightsaeError: If it holds none, or does not say the selection rule.
    """
    settings = _saved_settings(content, path)
    d_sae, d_in = _weights(content, path).shape
    rule, kind = _selection(settings, path), settings.get("normalization", "variance")
    transcoder = _transcoder(settings.get("transcoder"), path)
    state = _plainly_named(content).items()
    tensors = {name.removeprefix(_PREFIX): t for name, t in state if name.startswith(_PREFIX)}
    try:
        with torch.device("meta"):  # no memory, no random numbers
            if transcoder is None:
                sae = SparseAutoencoder(d_in, d_sae, rule, kind)
            else:
                sae = Transcoder(d_in, d_sae, rule, kind, transcoder.d_out, transcoder.skip)
        sae.load_state_dict(tensors, assign=True)
    except (TypeError, RuntimeError, LightsaeError) as error:
        raise LightsaeError(f"{path}: {str(error).splitlines()[-1].strip()}") from error
    return sae


def _plainly_named(content: Mapping[str, Any]) -> dict[str, Any]:
    """The state without the names that `torch.compile` puts into it."""
    return {plain_name(name): tensor for name, tensor in content["state_dict"].items()}


def _weights(content: Mapping[str, Any], path: Path) -> Tensor:
    """The encoder, which tells the sizes."""
    found = _plainly_named(content).get("sae.W_enc")
    if not isinstance(found, Tensor) or found.dim() != 2:
        raise LightsaeError(f"{path}: holds no autoencoder: it has no sae.W_enc [d_sae, d_in]")
    return found


def _saved_settings(content: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """What a checkpoint says, an older one with the help of its run folder."""
    if "regularizer" in content:
        return content
    return {**_settings_of_run_folder(path, len(_weights(content, path))), **content}


def _settings_of_run_folder(path: Path, d_sae: int) -> dict[str, Any]:
    """What config.yaml of the run folder says of the model, in the words of a checkpoint."""
    for folder in path.absolute().parents[:2]:
        try:
            model = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
            if model["d_sae"] == d_sae:
                return _settings_of_config(model)
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
            continue
    return {}


def _settings_of_config(model: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a configuration; what it leaves out has its default."""
    selection = model.get("selection") or {
        "class_path": "lightsae.sae.TopK",
        "init_args": {"k": 32},
    }
    regularizer = model.get("regularizer")
    return {
        "selection": {
            "rule": _name(selection["class_path"], SELECTIONS),
            **(selection.get("init_args") or {}),
        },
        "regularizer": regularizer
        and {
            "class": _name(regularizer["class_path"], REGULARIZERS),
            **(regularizer.get("init_args") or {}),
        },
        "aux_k": model.get("aux_k"),
        "reconstruction": (nested := model.get("reconstruction"))
        and {
            "class": _name(nested["class_path"], RECONSTRUCTIONS),
            **(nested.get("init_args") or {}),
        },
        "normalization": model.get("normalization", "variance"),
    }


def _name(class_path: str, known: Collection[str]) -> str:
    """The name of a class of this package; another's path."""
    package, _, name = class_path.rpartition(".")
    ours = name in known and package in ("", "lightsae.sae")
    return name if ours else class_path


def _selection(settings: Mapping[str, Any], path: Path) -> Selection:
    found = settings.get("selection")
    if found is None:
        raise LightsaeError(
            f"{path}: does not say its selection rule, and no config.yaml of its run is there"
        )
    rule: Selection = _named(found, "rule", "selection", SELECTIONS, path)
    return rule


def _regularizer(found: Any, path: Path) -> Regularizer | None:
    return None if found is None else _named(found, "class", "regularizer", REGULARIZERS, path)


def _reconstruction(found: Any, path: Path) -> Reconstruction | None:
    if found is None:
        return None
    loss: Reconstruction = _named(found, "class", "reconstruction", RECONSTRUCTIONS, path)
    return loss


def _transcoder(found: Any, path: Path) -> TranscoderOptions | None:
    if found is None:
        return None
    settings = _mapping(found, "transcoder", path)
    options: TranscoderOptions = _built(TranscoderOptions, settings, "transcoder", path)
    return options


def _anchor(found: Any, path: Path) -> VocabularyAnchor | None:
    """The anchor; none where its vocabulary was a matrix, and evaluation needs none."""
    if found is None:
        return None
    settings = dict(_mapping(found, "anchor", path))
    settings.pop("digest", None)
    if settings.get("vocabulary") is None:
        rank_zero_warn(
            f"{path}: was trained with an anchor to a matrix, which it does not hold: to train on, "
            "give load_from_checkpoint anchor=..."
        )
        return None
    anchor: VocabularyAnchor = _built(VocabularyAnchor, settings, "anchor", path)
    return anchor


def _aux_k(found: Any, path: Path) -> AuxK | None:
    return None if found is None else _built(AuxK, _mapping(found, "aux_k", path), "aux_k", path)


def _named(
    found: Any, key: str, what: str, known: Mapping[str, Callable[..., Any]], path: Path
) -> Any:
    """The object of a name and settings, of the classes of this package alone."""
    settings = dict(_mapping(found, what, path))
    name = settings.pop(key, None)
    if not isinstance(name, str) or name not in known:
        raise LightsaeError(
            f"{path}: its {what} is {name}, which is not of this package: "
            f"give load_from_checkpoint {what}=..."
        )
    return _built(known[name], settings, what, path)


def _built(make: Callable[..., Any], settings: Mapping[str, Any], what: str, path: Path) -> Any:
    try:
        return make(**settings)
    except (TypeError, LightsaeError) as error:
        raise LightsaeError(f"{path}: {what}: {error}") from error


def _mapping(found: Any, what: str, path: Path) -> Mapping[str, Any]:
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise LightsaeError(f"{path}: its {what} is {found!r}, expected a name and settings")
    return found
