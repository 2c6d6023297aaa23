"""Whether two commands have the settings of one run, and which of them differ."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from lightsae.errors import LightsaeError
from lightsae.files import expanded

_MAY_CHANGE = (
    # where things are and how often the run is kept
    "run_dir", "checkpoint_every", "config", "ckpt_path", "weights_only",
    "trainer.default_root_dir",
    # A checkpoint keeps its digest.
    "model.init_args.anchor.init_args.vocabulary",
    # how long it is
    "trainer.max_epochs", "trainer.min_epochs", "trainer.max_steps", "trainer.min_steps",
    "trainer.max_time",
    # what is shown or logged of it
    "trainer.logger", "trainer.log_every_n_steps", "trainer.enable_progress_bar",
    "trainer.enable_model_summary", "trainer.profiler", "trainer.model_registry",
    "trainer.enable_autolog_hparams",
    # what fit does not do
    "evaluation", "trainer.limit_test_batches", "trainer.limit_predict_batches",
)  # fmt: skip
# Where what is trained on lies; what it is, a digest tells.
_PLACES = (
    "data.init_args.path", "data.init_args.embeddings", "data.init_args.targets",
    "data.init_args.source.init_args.encoders",
    "data.init_args.data.folder", "data.init_args.data.huggingface",
    "data.init_args.data.webdataset", "data.init_args.data.arrays",
    "data.init_args.model.weights",
)  # fmt: skip
# Last words of the settings that are paths, in classes of the user's too.
_PATHS = {
    "path", "dirpath", "folder", "root", "encoders", "huggingface", "webdataset", "arrays",
    "weights", "embeddings", "targets",
}  # fmt: skip
_START = "model.init_args.start_from"

Complete = Callable[[dict[str, Any]], dict[str, Any]]


def changed_settings(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    has_digest: bool = False,
    complete: Complete = dict,
) -> list[str]:
    """The settings that make a run what it is and differ, each with both values.

    Two paths of one file are the same, and so are a number and its text.

    Args:
        before: Settings of the run, as plain values.
        now: Settings of the command.
        has_digest: Whether the shards are told by a digest, so that they may lie elsewhere.
        complete: Gives the settings of a run of an earlier version the defaults of what it did not
            know.

    Example:
        >>> changed_settings({"seed_everything": 0, "run_dir": "a"}, {"seed_everything": 1})
        ['seed_everything was 0, is 1']
    """
    free = _MAY_CHANGE + (_PLACES if has_digest else ())
    was, found = _identity(complete(dict(before)), free), _identity(now, free)
    return [
        f"{key} was {was.get(key)}, is {found.get(key)}"
        for key in sorted((was.keys() | found.keys()) - _unknown(before, found))
        if not _same(was.get(key), found.get(key), key)
    ]


def _unknown(before: Mapping[str, Any], found: Mapping[str, Any]) -> set[str]:
    """Earlier versions wrote those settings of the trainer alone that `--help` shows."""
    trainer = before.get("trainer") or {}
    if "num_nodes" in trainer:
        return set()
    keys = {key for key in found if key.startswith("trainer.")}
    return {key for key in keys if key.split(".")[1] not in trainer}


def _identity(config: Mapping[str, Any], free: tuple[str, ...]) -> dict[str, Any]:
    """The settings that make a run what it is, flat."""
    plain = yaml.safe_load(yaml.safe_dump(dict(config)))
    return {
        key: value
        for key, value in _flat("", plain)
        if not any(key == name or key.startswith(f"{name}.") for name in free)
    }


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(prefix, value)]
    parts = ((f"{prefix}.{key}" if prefix else str(key), child) for key, child in value.items())
    return [pair for key, child in parts for pair in _flat(key, child)]


def _same(was: Any, now: Any, key: str) -> bool:
    """Whether two values of a setting mean the same."""
    if isinstance(was, dict) and isinstance(now, dict):
        return was.keys() == now.keys() and all(_same(was[name], now[name], name) for name in was)
    if isinstance(was, list) and isinstance(now, list):
        return len(was) == len(now) and all(
            _same(*pair, key) for pair in zip(was, now, strict=True)
        )
    if was == now:
        return True
    if key == _START:  # a checkpoint keeps the hash of what lies there
        return was is not None and now is not None
    names = [value for value in (was, now) if isinstance(value, str | int) and value is not True]
    if len(names) < 2 or not any(isinstance(name, str) for name in names):
        return False
    return str(was) == str(now) or (_is_path(key) and _same_file(was, now))


def _is_path(key: str) -> bool:
    """Whether a setting is a path, by its last word; a model's name may be a folder."""
    return key == "data.init_args.model.name" or key.split(".")[-1] in _PATHS


def _same_file(was: str | int, now: str | int) -> bool:
    """Whether two paths lead to one file."""
    try:
        files = [expanded(was), expanded(now)]
        return files[0] == files[1] or os.path.samefile(*files)
    except (OSError, ValueError, LightsaeError):
        return False
