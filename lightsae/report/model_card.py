"""The model card of a run: what it was trained on and how, and the numbers of its evaluation."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from lightsae.activations.shards.manifest import Manifest
from lightsae.errors import LightsaeError
from lightsae.evaluation import EvaluationResult
from lightsae.sae.model_card import escaped, model_card, table
from lightsae.sae.save_load import SETTINGS, read_settings

_EVALUATION, _CONFIG = "evaluation.json", "config.yaml"
_SCALARS = {
    "r2": "R², explained variance",
    "nmse": "NMSE",
    "l0": "L0, latents that fire per row",
    "dead": "dead latents, on no row of the split",
    "decoder_coherence": "largest |cosine| of two decoder rows",
    "purity_binary": "class purity",
    "morans_i": "Moran's I of patches",
    "probe_top1_at_32": "top-1 of a linear probe on 32 latents",
}
_OF_EMBEDDINGS = {
    "ms_mean": "mean",
    "ms_median": "median",
    "ms_mean_with_dead_as_zero": "mean, silent latents as 0",
    "ms_scored": "latents scored",
}
_TIMM = re.compile(r"[a-z0-9_]*\d[a-z0-9_]*\.[a-z0-9_]+")
_REPO = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)


def run_card(
    folder: Path,
    sae: Path,
    repo: str,
    *,
    subfolder: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
) -> str:
    """Text of the card of a run, or of an autoencoder alone.

    Paths of this machine are left out; names are escaped.

    Args:
        folder: Where config.yaml and evaluation.json are, if there are any.
        sae: The folder with sae.json.
        repo: The repository, OWNER/NAME.
        subfolder: Folder of the autoencoder in the repository.
        license: The Hub's name of a licence.
        base_model: The repository of the model whose activations these are; by default told by the
            name of a model of timm or transformers.

    Raises:
        LightsaeError: If one of the files is not what it should be, or the evaluation is of another
            autoencoder.
    """
    settings = read_settings(sae / SETTINGS)
    config = _config(folder / _CONFIG)
    source = _source(config)
    sections = [_training(config, source)] if config else []
    if (folder / _EVALUATION).exists():
        sections.append(_evaluation(folder, settings))
    return model_card(
        repo, settings, subfolder=subfolder, license=license, sections=sections,
        base_model=hub_name(source.get("model", "")) if base_model is None else base_model,
    )  # fmt: skip


def hub_name(title: str) -> str | None:
    """Repository of a model of timm or transformers, if its name in a manifest tells.

    Args:
        title: As `Manifest.model` has it.

    Example:
        >>> hub_name("vit_small_patch14_dinov2.lvd142m"), hub_name("transformers:facebook/dino")
        ('timm/vit_small_patch14_dinov2.lvd142m', 'facebook/dino')
        >>> hub_name("torchvision:vit_b_16") is None
        True
    """
    library, _, name = title.rpartition(":")
    if library == "transformers" and _REPO.fullmatch(name):
        return name
    return f"timm/{title}" if _TIMM.fullmatch(title) else None


def _config(path: Path) -> dict[str, Any]:
    """The settings of a run, or empty."""
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise LightsaeError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise LightsaeError(f"{path} does not hold the settings of a run")
    return found


def _source(config: Mapping[str, Any]) -> dict[str, str]:
    """Model, layer and tokens of the activations, as their shards tell, if they are still there."""
    path = _at(config, "data", "init_args", "path")
    if isinstance(path, str):
        with suppress(LightsaeError):
            found = Manifest.load(path)
            return {"model": found.model, "layer": found.layer, "tokens": found.tokens}
    options = _at(config, "data", "init_args")
    library, name = _at(options, "model", "library"), _at(options, "model", "name")
    if name is None:
        return {}
    title = name if library in (None, "timm") else f"{library}:{name}"
    told = {"model": title, "layer": _at(options, "layer"), "tokens": _at(options, "tokens")}
    return {key: str(value) for key, value in told.items() if value is not None}


def _training(config: Mapping[str, Any], source: Mapping[str, str]) -> str:
    of_model = _at(config, "model", "init_args")
    optimizer = _at(of_model, "optimizer")
    told = {
        **source,
        "regularizer": _short(_at(of_model, "regularizer")) or "none",
        "optimizer": _short(optimizer),
        "batch size": _at(config, "data", "init_args", "batch_size"),
        "epochs": _at(config, "trainer", "max_epochs"),
        "steps at most": _at(config, "trainer", "max_steps"),
        "precision": _at(config, "trainer", "precision"),
        "seed": config.get("seed_everything"),
    }
    rows = [(name, value) for name, value in told.items() if value not in (None, "", -1)]
    return "## Training\n\n" + table(("", ""), rows)


def _short(component: Any) -> str:
    """A class of the configuration with its plain arguments, such as L1L2Ratio: weight = 0.01."""
    path, arguments = _at(component, "class_path"), _at(component, "init_args")
    if not isinstance(path, str):
        return ""
    plain = arguments.items() if isinstance(arguments, dict) else ()
    told = [f"{name} = {value}" for name, value in plain if isinstance(value, int | float)]
    name = path.rpartition(".")[2]
    return f"{name}: {', '.join(told)}" if told else name


def _evaluation(folder: Path, settings: Mapping[str, Any]) -> str:
    result = EvaluationResult.load(folder)
    for name in ("d_in", "d_sae"):
        found = result.about.get(name)
        if found not in (None, settings[name]):
            raise LightsaeError(
                f"{folder / _EVALUATION} is of an autoencoder with {name} = {found}, not "
                f"{settings[name]}: run `lightsae test` again"
            )
    about = result.about
    counted = f"{about.get('rows')} rows of {about.get('images')} images"
    lines = [
        "## Evaluation",
        escaped(f"On the split {about.get('split')}: {counted}, step {about.get('step')}."),
        table(("figure", "value"), _rows(result, _SCALARS)),
    ]
    lines += [_of_embeddings(result, entry) for entry in about.get("embeddings") or []]
    return "\n\n".join(lines)


def _of_embeddings(result: EvaluationResult, entry: Mapping[str, Any]) -> str:
    """Monosemanticity in one E; of a folder of shards its model is told, not where it lies."""
    name, source = str(entry["name"]), str(entry.get("source", "")).rpartition(": ")[2]
    known = {f"{key}/{name}": title for key, title in _OF_EMBEDDINGS.items()}
    told = escaped(f"Monosemanticity in the embeddings of {name} ({source}):")
    return f"{told}\n\n{table(('MS', 'value'), _rows(result, known))}"


def _rows(result: EvaluationResult, titles: Mapping[str, str]) -> list[tuple[str, str]]:
    found = ((title, result.scalars.get(name)) for name, title in titles.items())
    return [(title, f"{value:.5g}") for title, value in found if value is not None]


def _at(value: Any, *keys: str) -> Any:
    """What nested mappings hold at some keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
