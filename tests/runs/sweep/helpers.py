"""A configuration of a small sweep, and what it leaves behind."""

from pathlib import Path
from typing import Any

import yaml

from ...training.helpers import write_config

SAE_ADAM = {"class_path": "lightsae.training.SAEAdam", "init_args": {"lr": 0.01}}
GRID: dict[str, Any] = {
    "k": [2, 3],
    "regularizer": [None, "OffSupportL1", "lightsae.sae.L1L2Ratio"],
    "weight": [0.02],
    "seed": [0, 1],
}


def write_sweep(path: Path, shards: Path, sweep: dict[str, Any], **changes: Any) -> Path:
    """A YAML for `lightsae sweep`."""
    changes = {"model__init_args__optimizer": SAE_ADAM, **changes}
    config = yaml.safe_load(write_config(path, shards, **changes).read_text())
    path.write_text(yaml.safe_dump({**config, "sweep": sweep}))
    return path


def left_behind(folder: Path) -> dict[str, bytes]:
    """Every file of a sweep by name; of checkpoints and metrics what does not tell the time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".json") or path.name == "config.yaml":
            found[str(path.relative_to(folder))] = path.read_bytes()
    return {name: content.replace(str(folder).encode(), b"") for name, content in found.items()}
